"""From settings to everything a run holds: task, devices, policy, stages and the first state."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpsjax.grpo import BeliefAdvantages
from dpsjax.grpo import mesh as meshes
from dpsjax.grpo.batch import round_up
from dpsjax.loop import build
from dpsjax.loop.adapters import Adapters
from dpsjax.loop.build import Spec
from dpsjax.loop.collect import Collector, rounds_of
from dpsjax.loop.compilation import compiler_options, return_freed_memory
from dpsjax.loop.evaluate import Evaluation, make_evaluate, uniform_slice
from dpsjax.loop.prompts import Prompts, Sight, image_id, seen_by, tokenize
from dpsjax.loop.state import TrainState
from dpsjax.loop.step import Loop
from dpsjax.loop.watched import watched
from dpsjax.policy import (
    Policy,
    PolicyConfig,
    abstract_policy,
    load_checkpoint,
    load_weights,
    stored_config,
)
from dpsjax.policy.sharding import MESH_AXES, shardings
from dpsjax.run.config import MeshConfig, TrainConfig
from dpsjax.run.language import as_text, for_language_model, is_checkpoint_folder
from dpsjax.selectors import Outlook, inspect
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.workers import ScoringWorkers
from dpsjax.types import Key, PyTree

# What the key of a seed is used for.
_WEIGHTS, _STEPS, _EVALUATION, _ADAPTERS = 0, 1, 2, 3


@dataclass(frozen=True)
class Run(Loop):
    """All that a run needs besides its state. Nothing in it changes during the run.

    Attributes:
        config: The settings.
        policy: Architecture.
        inspect: See :func:`dpsjax.inspect`; of the selector's state.
        evaluation: Held-out accuracy of a policy's parameters.
        held_out: The problems that it asks.
    """

    config: TrainConfig
    policy: PolicyConfig
    inspect: Callable[[PyTree], Outlook]
    evaluation: Evaluation
    held_out: tuple[Problem, ...]


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
    key, mesh = jax.random.key(config.seed), make_mesh(config.mesh)
    task = build_task(config)
    policy = policy_of(config, task)
    task, sight = seen_by(policy.vision, task)
    # Outside the mesh: what a selector is made of are constants of its programs, of no devices.
    spec = spec_of(config, task, policy, sight)
    with jax.set_mesh(mesh):
        base = _parameters(config, policy, mesh, jax.random.fold_in(key, _WEIGHTS))
        stages = build.build(spec, mesh)
        params = base
        if spec.adapters is not None:
            params = _adapters(spec.adapters, policy, mesh, jax.random.fold_in(key, _ADAPTERS))
        rows = build.round_up(len(task.train), mesh.size)
        data = config.selector.data(task.train, rows)
        held_out = uniform_slice(task.test, config.evaluation.size(len(task.test)))
        of_evaluation = jax.random.fold_in(key, _EVALUATION)
        state = stages.start(params, jax.random.fold_in(key, _STEPS), data)
        run = Run(
            config=config,
            task=task,
            mesh=mesh,
            stages=stages,
            collector=spec.collector,
            policy=policy,
            prompts=_place_pool(task, rows, mesh, sight),
            reference=_reference(config, base),
            buckets=config.rollout.buckets,
            sample=config.responses.sample(),
            overlong=config.rollout.overlong(task.response_tokens),
            inspect=jax.jit(
                functools.partial(inspect, spec.selector, group=spec.grpo.rollouts_per_prompt),
                out_shardings=meshes.replicated(mesh),
                compiler_options=compiler_options(mesh),
            ),
            evaluation=_evaluation(config, task, held_out, spec, mesh, of_evaluation),
            held_out=held_out,
        )
    return run, state


def build_task(config: TrainConfig, scored: bool = True) -> Task:
    """The task of the settings, for the policy of the settings.

    Args:
        config: the settings.
        scored: whether responses will be scored, by workers where the task needs them.

    Raises:
        ValueError: a setting is out of range.
        OSError: a checkpoint folder has no tokenizer.
    """
    task = config.task.build()
    _require_enough(task, config)
    if scored and (workers := config.rollout.workers_of(task)):
        seconds, one = config.rollout.seconds, task.isolated
        score = ScoringWorkers(task.score, workers, seconds, one_by_one=one)
        score.start()
        task = dataclasses.replace(task, score=score)
    if is_checkpoint_folder(config.model.init):
        return for_language_model(task, Path(config.model.init), config.model.template_settings())
    return as_text(task)


def require_pool(pool: int, prompts: int) -> None:
    """Refuse a pool that is smaller than a batch.

    Args:
        pool: problems.
        prompts: of a batch.

    Raises:
        ValueError: there are fewer problems.
    """
    if pool < prompts:
        raise ValueError(f"prompts={prompts} must not exceed the pool of {pool} problems")


def _require_enough(task: Task, config: TrainConfig) -> None:
    """Refuse a pool that is smaller than a batch, or than the evaluation's slice."""
    held_out = len(task.test)
    require_pool(len(task.train), config.rollout.prompts)
    if not held_out:
        raise ValueError("there is no held-out problem, and every run is evaluated: hold some out")
    if config.evaluation.size(held_out) > held_out:
        raise ValueError(
            f"evaluation.problems={config.evaluation.problems} must not exceed the {held_out} "
            "held-out problems"
        )


def spec_of(
    config: TrainConfig, task: Task, policy: PolicyConfig, sight: Sight | None = None
) -> Spec:
    """The step that settings describe.

    Args:
        config: the settings.
        task: of :func:`build_task`.
        policy: architecture.
        sight: how it sees the pictures of the task, if there are any.

    Returns:
        what :func:`dpsjax.loop.build.build` makes stages of, for any devices.

    Raises:
        ValueError: settings that do not fit each other or the pool.
        OSError: a file that a setting names cannot be read.
    """
    settings, prompts = config.selector, config.rollout.prompts
    counts = isinstance(config.grpo.loss.advantage_function, BeliefAdvantages)
    first, rest = settings.screening() or (config.grpo.rollouts_per_prompt, 0)
    grpo = dataclasses.replace(config.grpo, rollouts_per_prompt=first + rest)
    data = settings.data(task.train, len(task.train))
    selector = settings.build(task.train, first + rest)
    rounds = rounds_of(settings.max_rounds, prompts, len(task.train))
    rank, alpha = config.model.lora_rank, config.model.lora_alpha
    return Spec(
        selector=watched(selector, data, counts),
        policy=policy,
        compute=config.model.compute(),
        sampling=config.rollout.sampling(task.response_tokens, task.tokenizer),
        grpo=grpo,
        collector=Collector(prompts, rounds, rest),
        pool=len(task.train),
        prompt_tokens=task.prompt_tokens,
        keep=config.rollout.keep,
        mask_endless=config.rollout.mask_truncated,
        columns={n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in data.items()},
        most=settings.most_rollouts(),
        adapters=Adapters(rank, alpha) if rank else None,
        sight=sight,
    )


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of the settings, over the first devices if they ask for fewer than there are.

    Raises:
        ValueError: there are not enough devices.
    """
    axes = mesh_axes(config, jax.device_count())
    return meshes.make_mesh(*axes, jax.devices()[: math.prod(axes)])


def mesh_axes(config: MeshConfig, available: int) -> tuple[int, int, int]:
    """The sizes of ``data``, ``fsdp`` and ``tensor`` on so many devices.

    Args:
        config: the settings.
        available: devices.

    Raises:
        ValueError: there are not enough devices.
    """
    data = config.data or max(available // (config.fsdp * config.tensor), 1)
    wanted = data * config.fsdp * config.tensor
    if wanted > available:
        raise ValueError(
            f"mesh.data={data} x mesh.fsdp={config.fsdp} x mesh.tensor={config.tensor} needs "
            f"{wanted} devices, and there are {available}"
        )
    return data, config.fsdp, config.tensor


def weights_path(config: TrainConfig) -> Path | None:
    """The file or checkpoint folder that ``--init`` means; None for random weights."""
    init = config.model.init
    if init == "random":
        return None
    path = config.task.base() if init == "base" else Path(init)
    if not path.exists():
        raise FileNotFoundError(
            f"init={init!r}: there are no weights at {path}; give a path, or 'random'"
        )
    return path


def policy_of(config: TrainConfig, task: Task) -> PolicyConfig:
    """The architecture of the settings' policy; no weights are read.

    Args:
        config: the settings.
        task: of :func:`build_task`.

    Raises:
        ValueError: a size is out of range, or the weights are for another vocabulary.
        FileNotFoundError: there are no weights at ``config.model.init``.
    """
    weights, vocabulary = weights_path(config), task.tokenizer.vocab_size
    if weights is None:
        sees = any(problem.images for problem in task.train)
        return config.model.policy(vocabulary, image_id(task.tokenizer) if sees else None)
    policy = stored_config(weights)
    if policy.vision is not None and (most := config.model.max_pixels) is not None:
        least = min(policy.vision.min_pixels, most)
        vision = dataclasses.replace(policy.vision, max_pixels=most, min_pixels=least)
        policy = dataclasses.replace(policy, vision=vision)
    # The embedding of a checkpoint is often larger than its vocabulary, for even shards.
    if policy.vocab_size < vocabulary or (policy.vocab_size != vocabulary and weights.is_file()):
        raise ValueError(
            f"init={config.model.init!r} has a vocabulary of {policy.vocab_size} tokens, and the "
            f"task's tokenizer has {vocabulary}: use weights made for this task"
        )
    return policy


def _parameters(config: TrainConfig, policy: PolicyConfig, mesh: Mesh, key: Key) -> PyTree:
    """The first parameters, placed on the mesh."""
    weights, compute = weights_path(config), config.model.compute()
    if weights is not None:
        return (load_checkpoint if weights.is_dir() else load_weights)(weights, mesh=mesh)[1]

    def init(key: Key) -> PyTree:
        return nnx.split(Policy(policy, compute, rngs=nnx.Rngs(params=key)))[1]

    places = shardings(abstract_policy(policy, compute)[1], mesh)
    return jax.jit(init, out_shardings=places, compiler_options=compiler_options(mesh))(key)


def _adapters(adapters: Adapters, policy: PolicyConfig, mesh: Mesh, key: Key) -> PyTree:
    """Adapters at their start, placed on the mesh."""
    places = shardings(adapters.shapes(policy), mesh)
    return jax.jit(lambda key: adapters.init(key, policy), out_shardings=places)(key)


def _place_pool(task: Task, rows: int, mesh: Mesh, sight: Sight | None) -> Prompts:
    """The training prompts, divided over all devices; a process tokenises those of its own."""
    sharding = NamedSharding(mesh, PartitionSpec(MESH_AXES))

    parts = []
    for device, index in sharding.addressable_devices_indices_map((rows,)).items():
        start, stop, _ = index[0].indices(rows) if index else (0, rows, 1)
        # Rows past the pool are never drawn; they repeat a prompt because they must be some.
        problems = task.train[start:stop] or task.train[:1]
        part = tokenize(problems, task.tokenizer, task.prompt_tokens, stop - start, sight)
        parts.append(jax.device_put(part, device))

    def join(*pieces: jax.Array) -> jax.Array:
        shape = (rows, *pieces[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(pieces))

    return jax.tree.map(join, *parts)


def _evaluation(
    config: TrainConfig,
    task: Task,
    problems: tuple[Problem, ...],
    spec: Spec,
    mesh: Mesh,
    key: Key,
) -> Evaluation:
    """Held-out accuracy of the parameters of a policy."""
    sampling = config.evaluation.sampling(task.response_tokens, task.tokenizer)
    temperatures = [sampling.temperature] * config.evaluation.samples
    group = len(temperatures) + 1
    generate = build.generation(spec.policy, spec.compute, sampling, group, mesh)
    rows = round_up(config.rollout.prompts, mesh.shape["data"] * mesh.shape["fsdp"])
    return make_evaluate(task, problems, generate, temperatures, rows, mesh, key, spec.sight)


def _reference(config: TrainConfig, base: PyTree) -> PyTree:
    """What the update refers to: the base of adapters, or a copy for a KL penalty, or nothing."""
    if config.model.lora_rank:
        return base
    return jax.tree.map(jnp.copy, base) if config.grpo.loss.kl_coefficient else None
