"""From settings to everything a run holds: task, devices, policy, stages and the first state."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpsjax.grpo import mesh as meshes
from dpsjax.grpo.advantages import BeliefAdvantages
from dpsjax.grpo.config import GRPOConfig
from dpsjax.grpo.optimizer import make_optimizer
from dpsjax.grpo.update import UpdateFunction
from dpsjax.grpo.update import make_update as make_policy_update
from dpsjax.loop import refill, screening, stages
from dpsjax.loop.compilation import compiler_options, return_freed_memory
from dpsjax.loop.evaluate import Accuracy, make_evaluate, uniform_slice
from dpsjax.loop.prompts import Prompts, tokenize
from dpsjax.loop.refill import Refill
from dpsjax.loop.screening import Screening
from dpsjax.loop.state import TrainState, initial_state
from dpsjax.loop.watched import predict, watched
from dpsjax.policy import Policy, PolicyConfig, abstract_policy, load_checkpoint, load_weights
from dpsjax.policy.sharding import MESH_AXES, shardings
from dpsjax.run.adapters import make_adapter_update, make_adapters, make_merge
from dpsjax.run.budget_selectors import allocation_of, screen_of
from dpsjax.run.config import MeshConfig, ModelConfig, TrainConfig
from dpsjax.run.language import for_language_model, is_checkpoint_folder
from dpsjax.run.selectors import build_selector, max_rounds
from dpsjax.selectors import ChainState
from dpsjax.tasks.base import Task
from dpsjax.tasks.countdown import base_path
from dpsjax.tasks.workers import ScoringWorkers
from dpsjax.types import Array, Key, PyTree

# What the key of a seed is used for.
_WEIGHTS, _STEPS, _EVALUATION, _ADAPTERS = 0, 1, 2, 3


@dataclass(frozen=True)
class Run:
    """All that a run needs besides its state. Nothing in it changes during the run.

    Attributes:
        config: The settings.
        task: Problems and verifier.
        mesh: The devices.
        policy: Architecture.
        prompts: The pool, on the devices.
        reference: Parameters that a KL penalty refers to, or None.
        select: See :func:`dpsjax.loop.stages.make_select`.
        generate: See :func:`dpsjax.loop.stages.make_generate`.
        update: See :func:`dpsjax.loop.stages.make_update`.
        predict: See :func:`dpsjax.loop.watched.predict`; of the selector's state.
        evaluate: Held-out accuracy of parameters.
        whole: Parameters of the policy, of those that are trained; the same but for adapters.
        policy_update: The update of one batch, see :func:`dpsjax.grpo.update.make_update`.
        refill: The stages of a run whose steps go on until enough groups are accepted, or None.
        screening: The stages of a run whose steps screen prompts first, or None.
    """

    config: TrainConfig
    task: Task
    mesh: Mesh
    policy: PolicyConfig
    prompts: Prompts
    reference: PyTree
    select: Callable
    generate: Callable
    update: Callable
    predict: Callable[[PyTree], Array]
    evaluate: Callable[[PyTree], Accuracy]
    whole: Callable[[PyTree], PyTree]
    policy_update: UpdateFunction
    refill: Refill | None = None
    screening: Screening | None = None


def prepare(config: TrainConfig) -> tuple[Run, TrainState]:
    """Build a run and its first state. Nothing is compiled but the initialisation.

    Args:
        config: the settings.

    Returns:
        ``(run, state)``.

    Raises:
        ValueError: settings that do not fit each other, the task, the weights or the devices.
        FileNotFoundError: there are no weights at ``config.model.init``.
    """
    return_freed_memory()
    weights = weights_path(config.model.init)
    key, mesh = jax.random.key(config.seed), make_mesh(config.mesh)
    options = compiler_options(mesh)
    batch_rows = _round_up(config.rollout.prompts, mesh.shape["data"] * mesh.shape["fsdp"])
    _check_division(config.grpo, batch_rows)
    task = config.task.build()
    if config.rollout.workers:
        score = ScoringWorkers(task.score, config.rollout.workers, config.rollout.seconds)
        task = dataclasses.replace(task, score=score)
    if is_checkpoint_folder(config.model.init):
        task = for_language_model(task, Path(config.model.init))
    pool_rows = _round_up(len(task.train), mesh.size)
    advantages = config.loss.advantage_function()
    group = config.grpo.rollouts_per_prompt
    split = allocation_of(config.selector, config.rollout.prompts, group)
    screen = screen_of(config.selector)
    selector = watched(
        build_selector(config.selector, task.train),
        counts=split is not None or isinstance(advantages, BeliefAdvantages),
    )
    optimizer = make_optimizer(config.grpo)
    with jax.set_mesh(mesh):
        policy, graph, base = _load_policy(
            config.model,
            weights,
            task.tokenizer.vocab_size,
            mesh,
            jax.random.fold_in(key, _WEIGHTS),
        )
        params, merge = base, None
        if config.model.lora_rank:
            params = make_adapters(config.model, policy, mesh, jax.random.fold_in(key, _ADAPTERS))
            merge = make_merge(config.model, base, mesh)

        def start(params: PyTree) -> TrainState:
            belief = _mark_empty(selector.init(pool_rows), len(task.train))
            steps = jax.random.fold_in(key, _STEPS)
            first = initial_state(params, optimizer.init(params), belief, steps, pool_rows)
            return first._replace(pending=_buffer(config, task))

        everywhere: Any = meshes.replicated(mesh)
        shapes = jax.eval_shape(start, params)
        by_prompt = meshes.prompt_axis_shardings((shapes.selector, shapes.visits), mesh, pool_rows)
        by_parameter = shardings(params, mesh)
        placement = TrainState(
            params=by_parameter,
            opt_state=meshes.optimizer_shardings(optimizer, params, by_parameter, mesh),
            selector=by_prompt[0],
            key=everywhere,
            step=everywhere,
            position=everywhere,
            visits=by_prompt[1],
            rollouts=everywhere,
            pending=refill.buffer_shardings(shapes.pending, mesh) if shapes.pending else (),
        )
        state = jax.jit(start, out_shardings=placement, compiler_options=options)(params)

    def generation(size: int) -> Callable:
        return _generation(config, task, policy, mesh, size, merge)

    rounds = refill.rounds_of(max_rounds(config.selector), config.rollout.prompts, len(task.train))
    loss: dict[str, Any] = {"advantages": advantages, "keep": config.rollout.keep}
    update = _policy_update(config, graph, optimizer)
    run = Run(
        config=config,
        task=task,
        mesh=mesh,
        policy=policy,
        prompts=_place_pool(task, pool_rows, mesh),
        reference=_reference(config, base),
        select=stages.make_select(
            selector,
            config.rollout.prompts,
            batch_rows,
            mesh,
            placement.selector,
            split,
            group,
        ),
        generate=generation(1 if split else screen or group),
        update=stages.make_update(selector, update, mesh, placement, **loss),
        predict=jax.jit(
            functools.partial(predict, selector),
            out_shardings=meshes.replicated(mesh),
            compiler_options=options,
        ),
        evaluate=_evaluation(
            config, task, policy, mesh, batch_rows, jax.random.fold_in(key, _EVALUATION), merge
        ),
        whole=merge or _same,
        policy_update=update,
        refill=refill.make_refill(
            selector,
            update,
            config.rollout.prompts,
            batch_rows,
            rounds,
            mesh,
            placement,
            **loss,
        )
        if screen is None
        else None,
        screening=screening.make_screening(
            selector,
            update,
            generation(group - screen),
            config.rollout.prompts,
            batch_rows,
            rounds,
            mesh,
            placement,
            **loss,
        )
        if screen is not None
        else None,
    )
    return run, state


def _buffer(config: TrainConfig, task: Task) -> PyTree:
    """Room for groups that wait, where the selector's steps may have more than one round."""
    screen = screen_of(config.selector)
    if screen is not None:
        return screening.empty_hold(
            config.rollout.prompts, screen, task.prompt_tokens, task.response_tokens
        )
    if max_rounds(config.selector) == 1:
        return ()
    return refill.empty_buffer(
        config.rollout.prompts,
        config.grpo.rollouts_per_prompt,
        task.prompt_tokens,
        task.response_tokens,
    )


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of the settings, over the first devices if they ask for fewer than there are.

    Raises:
        ValueError: there are not enough devices.
    """
    available = jax.device_count()
    data = config.data or max(available // (config.fsdp * config.tensor), 1)
    wanted = data * config.fsdp * config.tensor
    if wanted > available:
        raise ValueError(
            f"mesh.data={data} x mesh.fsdp={config.fsdp} x mesh.tensor={config.tensor} needs "
            f"{wanted} devices, and there are {available}"
        )
    return meshes.make_mesh(data, config.fsdp, config.tensor, jax.devices()[:wanted])


def weights_path(init: str) -> Path | None:
    """The file or checkpoint folder that ``--init`` means; None for random weights."""
    if init == "random":
        return None
    path = base_path() if init == "base" else Path(init)
    if not path.exists():
        raise FileNotFoundError(
            f"init={init!r}: there are no weights at {path}; give a path, or 'random'"
        )
    return path


def _load_policy(
    config: ModelConfig, weights: Path | None, vocab_size: int, mesh: Mesh, key: Key
) -> tuple[PolicyConfig, nnx.GraphDef, PyTree]:
    """Architecture, graph and placed parameters."""
    compute = config.compute()
    if weights is None:
        policy = config.policy(vocab_size)
        graph, shapes = abstract_policy(policy, compute)

        def build(key: Key) -> PyTree:
            return nnx.split(Policy(policy, compute, rngs=nnx.Rngs(params=key)))[1]

        places = shardings(shapes, mesh)
        made = jax.jit(build, out_shardings=places, compiler_options=compiler_options(mesh))(key)
        return policy, graph, made
    folder = weights.is_dir()
    policy, params = (load_checkpoint if folder else load_weights)(weights, mesh=mesh)
    # The embedding of a checkpoint is often larger than its vocabulary, for even shards.
    if policy.vocab_size < vocab_size or (policy.vocab_size != vocab_size and not folder):
        raise ValueError(
            f"init={config.init!r} has a vocabulary of {policy.vocab_size} tokens, and the "
            f"task's tokenizer has {vocab_size}: use weights made for this task"
        )
    return policy, abstract_policy(policy, compute)[0], params


def _mark_empty(belief: ChainState, num_prompts: int) -> ChainState:
    """Rows beyond the pool, there to divide evenly over the devices, are never drawn."""
    rows = belief.active.shape[0]
    return belief._replace(active=jnp.arange(rows, dtype=jnp.int32) < num_prompts)


def _place_pool(task: Task, rows: int, mesh: Mesh) -> Prompts:
    """The training prompts, divided over all devices; a process tokenises those of its own."""
    sharding = NamedSharding(mesh, PartitionSpec(MESH_AXES))

    tokens, lengths = [], []
    for device, index in sharding.addressable_devices_indices_map((rows,)).items():
        start, stop, _ = index[0].indices(rows) if index else (0, rows, 1)
        # Rows past the pool are never drawn; they repeat a prompt because they must be some.
        problems = task.train[start:stop] or task.train[:1]
        part = tokenize(problems, task.tokenizer, task.prompt_tokens, stop - start)
        tokens.append(jax.device_put(part.tokens, device))
        lengths.append(jax.device_put(part.length, device))
    join = jax.make_array_from_single_device_arrays
    shape = (rows, task.prompt_tokens)
    return Prompts(join(shape, sharding, tokens), join((rows,), sharding, lengths))


def _evaluation(
    config: TrainConfig,
    task: Task,
    policy: PolicyConfig,
    mesh: Mesh,
    rows: int,
    key: Key,
    merge: Callable | None,
) -> Callable[[PyTree], Accuracy]:
    problems = uniform_slice(task.test, config.evaluation.problems)
    sampling = config.evaluation.sampling(task.response_tokens, task.tokenizer)
    samples = config.evaluation.samples
    compute = config.model.compute()
    # as many turns as divide the samples: waves are chosen for the rollouts of training
    compute = dataclasses.replace(compute, waves=math.gcd(compute.waves, samples))
    graph = abstract_policy(policy, compute)[0]
    generate = stages.make_generate(graph, sampling, samples, mesh)
    evaluate = make_evaluate(task, problems, generate, rows, mesh, key)
    return evaluate if merge is None else lambda params: evaluate(merge(params))


def _generation(
    config: TrainConfig,
    task: Task,
    policy: PolicyConfig,
    mesh: Mesh,
    size: int,
    merge: Callable | None,
) -> Callable:
    """Generation of ``size`` responses a row, with the parameters that are trained."""
    compute = config.model.compute()
    # as many turns as divide them: waves are chosen for the rollouts of a whole group
    compute = dataclasses.replace(compute, waves=math.gcd(compute.waves, size))
    graph = abstract_policy(policy, compute)[0]
    sampling = config.rollout.sampling(task.response_tokens, task.tokenizer)
    generate = stages.make_generate(graph, sampling, size, mesh)
    if merge is None:
        return generate
    return lambda params, *inputs: generate(merge(params), *inputs)


def _policy_update(
    config: TrainConfig, graph: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> UpdateFunction:
    """The update of what is trained: parameters or adapters."""
    log_probs = stages.log_prob_function(graph, config.rollout.temperature)
    variant = config.loss.variant()
    if config.model.lora_rank:
        return make_adapter_update(config.grpo, log_probs, optimizer, variant, config.model)
    return make_policy_update(config.grpo, log_probs, optimizer, variant)


def _reference(config: TrainConfig, base: PyTree) -> PyTree:
    """What the update refers to: the base of adapters, or a copy for a KL penalty, or nothing."""
    if config.model.lora_rank:
        return base
    return jax.tree.map(jnp.copy, base) if config.grpo.kl_coefficient else None


def _same(params: PyTree) -> PyTree:
    return params


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _check_division(config: GRPOConfig, rows: int) -> None:
    """Refuse small batches that do not divide the batch before anything is compiled."""
    group, mini = config.rollouts_per_prompt, config.mini_batch or rows
    micro = config.micro_batch or mini * group
    if rows % mini != 0:
        raise ValueError(
            f"grpo.mini_batch={mini} must divide the batch of {rows} prompts (--prompts)"
        )
    if group % micro != 0 and mini * group % micro != 0:
        raise ValueError(
            f"grpo.micro_batch={micro} sequences must divide a mini-batch of {mini} prompts x "
            f"{group} rollouts"
        )
