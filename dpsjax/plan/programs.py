"""The three programs of a step as shapes and shardings: nothing is allocated, nothing runs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from dpsjax import selectors
from dpsjax.grpo import mesh as meshes
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.config import GRPOConfig
from dpsjax.grpo.optimizer import make_optimizer
from dpsjax.grpo.update import make_update
from dpsjax.plan.flops import matmul_flops
from dpsjax.plan.setting import Job, Layout, in_mesh
from dpsjax.policy import Rollouts, Sampling, abstract_policy, generate, shardings, token_log_probs
from dpsjax.types import Array, PyTree

__all__ = ["Program", "Resident", "device_bytes", "program_flops", "programs", "resident"]


@functools.cache
def _selector() -> selectors.Selector:
    """DPS as in the released scripts on mathematics: lambda 0.7, the whole pool scored."""
    return selectors.dps(decay=0.7)


class Program(NamedTuple):
    """A jitted function and the shapes it is called with.

    Attributes:
        function: jitted, with the shardings of a real run.
        arguments: ``jax.ShapeDtypeStruct`` with shardings.
        loop_steps: how often its ``while`` loop runs at most; 1 without one.
    """

    function: Callable
    arguments: tuple
    loop_steps: int


class Resident(NamedTuple):
    """Bytes on each device that stay there between the programs.

    Attributes:
        parameters: float32.
        optimizer: two moments and counters.
        pool: belief about every prompt, and their tokens.
    """

    parameters: int
    optimizer: int
    pool: int


def device_bytes(tree: PyTree) -> int:
    """Bytes of the shapes in ``tree`` on one device, by their shardings."""

    def one(leaf: jax.ShapeDtypeStruct) -> int:
        shape, kind = leaf.shape, leaf.dtype
        if leaf.sharding is not None:
            shape = leaf.sharding.shard_shape(shape)
        size = 8 if jnp.issubdtype(kind, jax.dtypes.prng_key) else kind.itemsize
        for side in shape:
            size *= side
        return size

    return sum(one(leaf) for leaf in jax.tree.leaves(tree))


def _placed(shapes: PyTree, places: PyTree) -> PyTree:
    """The shapes with their shardings."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def _pool_rows(job: Job, devices: int) -> int:
    return -(-job.pool // devices) * devices


def _optimizer(job: Job, layout: Layout):
    config = GRPOConfig(
        rollouts_per_prompt=job.group,
        mini_batch=job.mini_batch,
        micro_batch=layout.micro_batch,
    )
    return config, make_optimizer(config)


def _states(job: Job, layout: Layout, mesh: Any) -> tuple[Any, PyTree, PyTree, PyTree]:
    """Graph of the policy; parameters, optimizer state and selector state as placed shapes."""
    graph, shapes = abstract_policy(job.policy, layout.compute())
    places = shardings(shapes, mesh)
    _, optimizer = _optimizer(job, layout)
    moments = jax.eval_shape(optimizer.init, shapes)
    rows = _pool_rows(job, layout.devices)
    belief = jax.eval_shape(lambda: _selector().init(rows, None))
    return (
        graph,
        _placed(shapes, places),
        _placed(moments, meshes.optimizer_shardings(optimizer, shapes, places, mesh)),
        _placed(belief, meshes.prompt_axis_shardings(belief, mesh, rows)),
    )


def resident(job: Job, layout: Layout) -> Resident:
    """What stays on a device, exactly.

    Args:
        job: the job.
        layout: how it lies on the devices.

    Returns:
        bytes per device.
    """
    _, params, moments, belief = _states(job, layout, layout.abstract_mesh())
    tokens = 4 * (job.prompt_len + 1) * _pool_rows(job, layout.devices) // layout.devices
    pool = device_bytes(belief) + tokens
    return Resident(device_bytes(params), device_bytes(moments), pool)


def programs(job: Job, layout: Layout, mesh: Mesh | AbstractMesh) -> dict[str, Program]:
    """The programs of a step: ``selection``, ``generation`` and ``update``.

    Args:
        job: the job.
        layout: how it lies on the devices.
        mesh: of ``layout``'s shape, with the devices of a real topology, or without any.

    Returns:
        By name, in the order in which they run.
    """
    states = _states(job, layout, mesh)
    return {
        "selection": _selection(job, mesh, states),
        "generation": _generation(job, mesh, states),
        "update": _update(job, layout, mesh, states),
    }


def _selection(job: Job, mesh: Any, states: tuple) -> Program:
    belief = states[3]

    def run(state: PyTree, key: Array, passes: Array, trials: Array):
        batch, state = selectors.select(_selector(), key, state, job.prompts)
        return batch, selectors.observe(_selector(), state, batch.index, passes, trials)

    whole: Any = meshes.replicated(mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, belief)
    counts = jax.ShapeDtypeStruct((job.prompts,), jnp.int32, sharding=whole)
    jitted = jax.jit(run, donate_argnums=0, out_shardings=(whole, (whole, places)))
    return Program(jitted, (belief, _key(whole), counts, counts), 1)


def _key(place: NamedSharding) -> jax.ShapeDtypeStruct:
    kind = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return jax.ShapeDtypeStruct((), kind, sharding=place)


def _generation(job: Job, mesh: Any, states: tuple) -> Program:
    graph, params = states[:2]
    sampling = Sampling(max_tokens=job.response_len, stop_ids=(0,))

    def run(params: PyTree, key: Array, prompt: Array, mask: Array) -> Rollouts:
        return generate(nnx.merge(graph, params), key, prompt, mask, sampling, job.group)

    rows: Any = meshes.batch_sharding(mesh)
    whole: Any = meshes.replicated(mesh)
    shape = (job.prompts, job.prompt_len)
    prompt = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
    mask = jax.ShapeDtypeStruct(shape, bool, sharding=rows)
    jitted = jax.jit(run, out_shardings=Rollouts(rows, rows, rows, whole))
    return Program(jitted, (params, _key(whole), prompt, mask), job.response_len)


def _update(job: Job, layout: Layout, mesh: Any, states: tuple) -> Program:
    graph, params, moments = states[:3]
    config, optimizer = _optimizer(job, layout)

    def log_probs(params: PyTree, prompt: Array, mask: Array, tokens: Array, real: Array):
        return token_log_probs(nnx.merge(graph, params), prompt, mask, tokens, real)

    update = make_update(config, log_probs, optimizer)
    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    jitted = meshes.jit_update(update, optimizer, params, places, mesh)
    return Program(jitted, (params, moments, _batch(job, mesh), None), 1)


def _batch(job: Job, mesh: Any) -> RolloutBatch:
    rows = meshes.batch_sharding(mesh)
    group, prompt = (job.prompts, job.group), (job.prompts, job.prompt_len)
    tokens = (*group, job.response_len)

    def shape(sizes: tuple[int, ...], kind: Any) -> Any:
        return jax.ShapeDtypeStruct(sizes, kind, sharding=rows)

    return RolloutBatch(
        index=shape(group[:1], jnp.int32),
        prompt=shape(prompt, jnp.int32),
        prompt_mask=shape(prompt, bool),
        tokens=shape(tokens, jnp.int32),
        mask=shape(tokens, bool),
        log_probs=shape(tokens, jnp.float32),
        advantages=shape(group, jnp.float32),
        informative=shape(group[:1], bool),
        accept=shape(group[:1], bool),
        weight=shape(group[:1], jnp.float32),
    )


def program_flops(job: Job, layout: Layout) -> dict[str, float]:
    """Operations of every program on one device, were the work evenly divided.

    Args:
        job: the job.
        layout: how it lies on the devices.

    Returns:
        By program.
    """
    found = {}
    with in_mesh(layout):
        for name, program in programs(job, layout, layout.abstract_mesh()).items():
            traced = jax.make_jaxpr(program.function)(*program.arguments)
            found[name] = matmul_flops(traced, program.loop_steps) / layout.devices
    return found
