"""From a description of a step, which holds no arrays, to its stages and the shapes they consume.

A run feeds the stages arrays; a planner lowers them from the shapes alone, for any devices.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dpsjax.grpo import GRPOConfig, UpdateFunction, batch_rows, make_optimizer, make_update
from dpsjax.grpo import mesh as meshes
from dpsjax.grpo.batch import round_up
from dpsjax.loop import stages
from dpsjax.loop.adapters import Adapters, make_adapter_update, make_merge
from dpsjax.loop.collect import Collector
from dpsjax.loop.compilation import AnyMesh, compiler_options
from dpsjax.loop.groups import Draw, Groups, Slots, group_shapes
from dpsjax.loop.prompts import Prompts, Sight
from dpsjax.loop.stages import Places
from dpsjax.loop.state import TrainState, initial_state
from dpsjax.policy import Compute, Images, PolicyConfig, Rollouts, Sampling, abstract_policy
from dpsjax.policy.sharding import MESH_AXES, shardings
from dpsjax.selectors import ChainState, Selector, prompt_axes
from dpsjax.selectors.pool import SHARED
from dpsjax.types import Array, Key, PyTree


@dataclass(frozen=True)
class Spec:
    """A training step: all that decides its programs.

    Attributes:
        selector: Of :func:`dpsjax.loop.watched.watched`.
        policy: Architecture.
        compute: How the policy is computed.
        sampling: How responses are drawn; its ``max_tokens`` is T.
        grpo: Of the update.
        collector: How groups come together; its ``batch_size`` is B.
        pool: N, prompts to choose from.
        prompt_tokens: P.
        sight: How the policy sees the pictures that prompts show, or None.
        keep: Rollouts of each group that the loss may see, or None for all.
        mask_endless: Whether the loss does not see responses without an end.
        columns: What the selector is told of each prompt: by name, the shape of one value.
        most: Rollouts of one prompt at most, where the selector divides those of a step.
        adapters: What is trained in place of the weights, or None.
    """

    selector: Selector
    policy: PolicyConfig
    compute: Compute
    sampling: Sampling
    grpo: GRPOConfig
    collector: Collector
    pool: int
    prompt_tokens: int
    keep: int | None = None
    mask_endless: bool = False
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    most: int | None = None
    adapters: Adapters | None = None
    sight: Sight | None = None

    @property
    def shown(self) -> Images | None:
        """Shapes of what a prompt shows."""
        return None if self.sight is None else self.sight.shapes()

    @property
    def first(self) -> int:
        """Rollouts of a row in a round."""
        return 1 if self.most else self.grpo.rollouts_per_prompt - self.collector.rest


class Stages(NamedTuple):
    """The programs of a step, jitted but not compiled, and what they consume.

    Attributes:
        start: ``(params, key, data) -> TrainState``; data by name, of every row of the pool.
        select: See :func:`dpsjax.loop.stages.make_select`.
        generate: See :func:`dpsjax.loop.stages.make_generate`.
        rest: The same for the rollouts after a screening, or None.
        offer: See :func:`dpsjax.loop.stages.make_offer`.
        take: See :func:`dpsjax.loop.stages.make_take`.
        update: See :func:`dpsjax.loop.stages.make_update`.
        merge: ``(base, adapters) -> params``, or None without adapters.
        policy_update: The update of one batch inside ``update``.
        axes: Prompt axis of each leaf of the selector's state (:func:`prompt_axes`).
        shapes: By the name of a stage, its arguments as ``ShapeDtypeStruct`` with shardings:
            ``getattr(stages, name).lower(*shapes[name])``.
    """

    start: Callable
    select: Callable
    generate: Callable
    rest: Callable | None
    offer: Callable
    take: Callable
    update: Callable
    merge: Callable | None
    policy_update: UpdateFunction
    axes: PyTree
    shapes: Mapping[str, tuple]


def build(spec: Spec, mesh: AnyMesh) -> Stages:
    """The stages of a step. Call it, and the stages, with ``mesh`` as the mesh of the context.

    Args:
        spec: the step.
        mesh: the devices; they may be those of a topology that is not here.

    Returns:
        the stages; nothing is compiled, and no array made.

    Raises:
        ValueError: small batches do not divide the batch.
        ImportError: the extra ``lora`` is needed and not installed.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size, group = spec.collector.batch_size, spec.grpo.rollouts_per_prompt
    rows = batch_rows(spec.grpo, batch_size, ways)
    pool_rows = round_up(spec.pool, mesh.size)
    graph, base = abstract_policy(spec.policy, spec.compute)
    params = base if spec.adapters is None else spec.adapters.shapes(spec.policy)
    optimizer = make_optimizer(spec.grpo)

    def start(params: PyTree, key: Key, data: Mapping[str, Array]) -> TrainState:
        belief = _mark_empty(spec.selector.init(pool_rows, data), spec.pool)
        first = initial_state(params, optimizer.init(params), belief, key, pool_rows)
        tokens = spec.prompt_tokens, spec.sampling.max_tokens
        return first._replace(pending=spec.collector.empty(spec.first, *tokens, spec.shown))

    whole: Any = meshes.replicated(mesh)
    data = _many(dict(spec.columns), pool_rows)
    state = jax.eval_shape(start, params, _key_shape(), data)
    axes = prompt_axes(spec.selector, data)
    by_prompt: Any = _by_prompt(mesh, 0)
    by_parameter = shardings(params, mesh)
    places = stages.places_of(
        mesh,
        TrainState(
            params=by_parameter,
            opt_state=meshes.optimizer_shardings(optimizer, params, by_parameter, mesh),
            selector=jax.tree.map(lambda axis: _by_prompt(mesh, axis), axes),
            key=whole,
            step=whole,
            position=whole,
            visits=by_prompt,
            rollouts=whole,
            pending=state.pending,
        ),
        slots=spec.most is not None,
        images=spec.sight is not None,
    )
    state = _placed(state, places.state)
    log_probs = stages.log_prob_function(graph, spec.sampling.temperature)
    if spec.adapters is None:
        update = make_update(spec.grpo, log_probs, optimizer)
    else:
        update = make_adapter_update(spec.grpo, log_probs, optimizer, spec.adapters)
    rest, stops = spec.collector.rest, spec.sampling.stop_ids
    return Stages(
        start=jax.jit(start, out_shardings=places.state, compiler_options=compiler_options(mesh)),
        select=stages.make_select(spec.selector, batch_size, group, rows, mesh, places, spec.most),
        generate=generation(spec.policy, spec.compute, spec.sampling, spec.first, mesh),
        rest=None if not rest else generation(spec.policy, spec.compute, spec.sampling, rest, mesh),
        offer=stages.make_offer(spec.selector, spec.collector, mesh, places, stops),
        take=stages.make_take(spec.collector, rows, mesh, places),
        update=stages.make_update(
            spec.selector,
            update,
            mesh,
            places,
            advantages=spec.grpo.loss.advantage_function,
            keep=spec.keep,
            mask_endless=spec.mask_endless,
            stop_ids=stops,
        ),
        merge=None if spec.adapters is None else make_merge(spec.adapters, shardings(base, mesh)),
        policy_update=update,
        axes=axes,
        shapes=_shapes(spec, mesh, places, state, _placed(base, shardings(base, mesh)), rows),
    )


def generation(
    policy: PolicyConfig, compute: Compute, sampling: Sampling, size: int, mesh: AnyMesh
) -> Callable:
    """The generation stage of ``size`` responses a row; see :func:`stages.make_generate`."""
    # as many turns as divide them: waves are chosen for the rollouts of a whole group
    compute = dataclasses.replace(compute, waves=math.gcd(compute.waves, size))
    return stages.make_generate(abstract_policy(policy, compute)[0], sampling, size, mesh)


def _shapes(
    spec: Spec, mesh: Any, places: Places, state: TrainState, base: PyTree, rows: int
) -> dict[str, tuple]:
    """What each stage consumes, in full length."""
    whole = meshes.replicated(mesh)
    group, length = spec.grpo.rollouts_per_prompt, spec.sampling.max_tokens
    lines = rows * group if spec.most else rows

    def leaf(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    def scored(size: int) -> Groups:
        one = _many(group_shapes(size, spec.prompt_tokens, length), lines)
        rollouts = Rollouts(one.tokens, one.mask, one.log_probs, leaf(jnp.int32))
        split = places.rollouts.tokens
        return _placed(
            Groups(rollouts, one.rewards, one.correct, one.valid),
            Groups(places.rollouts, split, split, split),
        )

    slots, of_prompt = None, lines
    if spec.most:
        of_prompt = spec.collector.batch_size
        slots = Slots(
            index=leaf(jnp.int32, of_prompt),
            row=leaf(jnp.int32, of_prompt, spec.most),
            slot=leaf(jnp.int32, lines),
            place=leaf(jnp.int32, lines),
        )
    taken = _many(group_shapes(spec.first, spec.prompt_tokens, length, spec.shown), lines)
    taken = _placed(taken._replace(slots=slots), places.collected)
    draw = Draw(
        index=taken.index,
        weight=taken.weight,
        prompt=taken.prompt,
        prompt_mask=taken.prompt_mask,
        predicted=leaf(jnp.float32, 3, of_prompt),
        occupancy=leaf(jnp.float32, 3),
        slots=slots,
        images=taken.images,
    )
    draw = _placed(draw, places.draw)
    key = _placed(_key_shape(), whole)
    pool = _placed(
        _many(
            Prompts(leaf(jnp.int32, spec.prompt_tokens), leaf(jnp.int32), spec.shown),
            state.visits.shape[0],
        ),
        _by_prompt(mesh, 0),
    )
    ledger = stages.without_policy(state)
    held = ledger if spec.collector.waits else ledger._replace(pending=taken)
    reference = base if spec.adapters or spec.grpo.loss.kl_coefficient else None
    responses = (base, key, draw.prompt, draw.prompt_mask)
    if spec.sight is not None:
        responses = (*responses, None, draw.images)
    rest = scored(spec.collector.rest) if spec.collector.rest else None
    data = _placed(_many(dict(spec.columns), state.visits.shape[0]), _by_prompt(mesh, 0))
    return {
        "start": (state.params, key, data),
        "select": (state.selector, key, state.step, pool),
        "generate": responses,
        "rest": responses,
        "offer": (ledger, draw, scored(spec.first)),
        "take": (held,),
        "update": (state, taken, rest, reference),
        "merge": (base, state.params),
    }


def _many(tree: PyTree, count: int) -> Any:
    """The shapes with one axis more in front."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), tree)


def _by_prompt(mesh: AnyMesh, axis: int) -> NamedSharding:
    """An axis of prompts divided over all devices; the whole everywhere where there is none."""
    spec = PartitionSpec() if axis == SHARED else PartitionSpec(*(None,) * axis, MESH_AXES)
    return NamedSharding(mesh, spec)


def _placed(shapes: PyTree, places: PyTree) -> Any:
    """The shapes with their shardings; one sharding may stand for all leaves below it."""

    def below(place: NamedSharding, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    return jax.tree.map(below, places, shapes)


def _key_shape() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _mark_empty(belief: ChainState, num_prompts: int) -> ChainState:
    """Rows beyond the pool, there to divide evenly over the devices, are never drawn."""
    rows = belief.active.shape[0]
    return belief._replace(active=jnp.arange(rows, dtype=jnp.int32) < num_prompts)
