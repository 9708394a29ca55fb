"""The device side of a step: select, generate, offer, take, update. Each is one jitted program.

All randomness is a function of the run's key and the number of the step, so the state before a
step decides the step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dpsjax import selectors
from dpsjax.grpo.advantages import AdvantageFunction, BeliefAdvantages
from dpsjax.grpo.batch import RolloutBatch, numerator_weight
from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.grpo.update import LogProbFunction, UpdateFunction, UpdateMetrics
from dpsjax.loop.collect import Collector, RoundReport, later_report, learn, rollout_batch
from dpsjax.loop.compilation import AnyMesh, compiler_options
from dpsjax.loop.groups import Collected, Draw, Groups, Slots, joined, of_rows, slots_of
from dpsjax.loop.prompts import Prompts, gather, gather_images
from dpsjax.loop.state import TrainState
from dpsjax.policy import Rollouts, Sampling, generate, token_log_probs
from dpsjax.rollouts import Buffer
from dpsjax.selectors import Selector
from dpsjax.types import Array, Key, PyTree

# What a key of a step is used for.
SELECT, GENERATE, CONTINUE = 0, 1, 2


def step_key(key: Key, step: Array, use: int) -> Key:
    """The key of one use in one step."""
    return jax.random.fold_in(jax.random.fold_in(key, step), use)


def round_key(key: Key, number: int) -> Key:
    """The key that stands for the run's in the later rounds of a step, counted from 0."""
    return jax.random.fold_in(key, number) if number else key


class Places(NamedTuple):
    """Shardings of what goes from stage to stage.

    Attributes:
        draw: of a :class:`Draw`.
        rollouts: of :class:`Rollouts`.
        collected: of :class:`Collected` groups.
        pending: of what waits between steps.
        state: of the whole state; its ``pending`` as between steps.
    """

    draw: Draw
    rollouts: Rollouts
    collected: Collected
    pending: PyTree
    state: TrainState

    @property
    def ledger(self) -> TrainState:
        """Of the state without the policy."""
        return without_policy(self.state)


def places_of(mesh: AnyMesh, state: TrainState, slots: bool, images: bool = False) -> Places:
    """The shardings.

    Args:
        mesh: the devices.
        state: a sharding for every leaf but those of ``pending``, which are shapes.
        slots: whether prompts get unequal numbers of rollouts.
        images: whether prompts show pictures.

    Returns:
        groups divided over the devices that share a batch; what waits too if that goes evenly.
    """
    split: Any = batch_sharding(mesh)  # Any: a sharding stands where the array will be
    whole: Any = replicated(mesh)
    of_slots = Slots(whole, whole, whole, whole) if slots else None
    shown = split if images else None
    collected = Collected(*(split for _ in Collected._fields))
    collected = collected._replace(slots=of_slots, images=shown)
    pending = state.pending
    if isinstance(pending, Buffer):
        even = pending.groups.index.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
        groups = jax.tree.map(lambda _: split if even else whole, pending.groups)
        pending = pending._replace(groups=groups, size=whole, lost=whole)
    return Places(
        draw=Draw(split, split, split, split, whole, whole, of_slots, shown),
        rollouts=Rollouts(split, split, split, whole),
        collected=collected,
        pending=pending,
        state=state._replace(pending=pending),
    )


def without_policy(state: TrainState) -> TrainState:
    """The state of all but the policy: stages that do not need it do not carry it."""
    return state._replace(params=(), opt_state=())


def make_select(
    selector: Selector,
    batch_size: int,
    group: int,
    rows: int,
    mesh: AnyMesh,
    places: Places,
    most: int | None = None,
) -> Callable:
    """Build the selection stage.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        batch_size: B.
        group: G.
        rows: R >= B, a multiple of the devices that share a batch.
        mesh: the devices.
        places: the shardings.
        most: Rollouts of one prompt at most, where the selector divides those of a step: the draw
            then has R G rows of one rollout.

    Returns:
        jitted ``(selector_state, key, step, prompts) -> (Draw, selector_state)``; it donates the
        selector's state.
    """

    def run(state: PyTree, key: Key, step: Array, pool: Prompts):
        batch, after = selectors.select(selector, step_key(key, step, SELECT), state, batch_size)
        outcome = selectors.inspect(selector, state, group).outcome
        active = state.active.astype(outcome.dtype)[None]
        if most is None:
            short = rows - batch_size
            index = jnp.pad(batch.index, (0, short), constant_values=-1)
            weight, of_prompt, slots = jnp.pad(batch.weight, (0, short)), index, None
        else:
            slots, index = slots_of(batch.index, batch.trials, most, rows * group)
            weight, of_prompt = of_rows(slots, batch.weight), batch.index
        prompt, mask = gather(pool, index)
        draw = Draw(
            index=index,
            weight=weight,
            prompt=prompt,
            prompt_mask=mask,
            predicted=outcome[:, jnp.maximum(of_prompt, 0)].astype(jnp.float32),
            occupancy=((outcome * active).sum(axis=1) / active.sum()).astype(jnp.float32),
            slots=slots,
            images=gather_images(pool, index),
        )
        return draw, after

    return _jit(run, mesh, (places.draw, places.state.selector))


def make_generate(graph: nnx.GraphDef, sampling: Sampling, group: int, mesh: AnyMesh) -> Callable:
    """Build the generation stage.

    Args:
        graph: the policy's, of ``nnx.split``.
        sampling: how to draw.
        group: G.
        mesh: the devices.

    Returns:
        jitted ``(params, key, prompt int32[R, P], mask bool[R, P], temperatures float32[G] |
        None = None, images = None) -> Rollouts``; see :func:`dpsjax.policy.generate`.
    """

    def run(
        params: PyTree,
        key: Key,
        prompt: Array,
        mask: Array,
        temperatures: Array | None = None,
        images: PyTree = None,
    ) -> Rollouts:
        model = nnx.merge(graph, params)
        return generate(model, key, prompt, mask, sampling, group, temperatures, images)

    split: Any = batch_sharding(mesh)
    whole: Any = replicated(mesh)
    return _jit(run, mesh, Rollouts(split, split, split, whole), donate=False)


def log_prob_function(graph: nnx.GraphDef, temperature: float) -> LogProbFunction:
    """The policy as :func:`dpsjax.grpo.update.make_update` wants it.

    Args:
        graph: the policy's, of ``nnx.split``.
        temperature: of the sampling.

    Returns:
        the function.
    """

    def run(
        params: PyTree,
        prompt: Array,
        prompt_mask: Array,
        tokens: Array,
        mask: Array,
        images: PyTree = None,
    ):
        model = nnx.merge(graph, params)
        given = (prompt, prompt_mask, tokens, mask)
        return token_log_probs(model, *given, temperature=temperature, images=images)

    return run


def make_offer(
    selector: Selector,
    collector: Collector,
    mesh: AnyMesh,
    places: Places,
    stop_ids: Sequence[int] = (),
) -> Callable:
    """Build the stage after each round: the belief learns, the collector gets the groups.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        collector: what they wait in.
        mesh: the devices.
        places: the shardings.
        stop_ids: tokens that end a response.

    Returns:
        jitted ``(ledger, draw, groups) -> (ledger, RoundReport)``; it donates the ledger, which is
        the state of :func:`without_policy`.
    """

    def run(state: TrainState, draw: Draw, groups: Groups) -> tuple[TrainState, RoundReport]:
        state, offered, report = learn(selector, state, draw, groups, stop_ids)
        pending = collector.offer(state.pending, offered)
        if isinstance(pending, Buffer):
            report = report._replace(waiting=pending.size)
        return state._replace(pending=pending), report

    held = places.pending if collector.waits else places.collected
    return _jit(run, mesh, (places.ledger._replace(pending=held), replicated(mesh)))


def make_take(collector: Collector, rows: int, mesh: AnyMesh, places: Places) -> Callable:
    """Build the stage that takes the groups of an update.

    Args:
        collector: what they wait in.
        rows: R >= B, a multiple of the devices that share a batch.
        mesh: the devices.
        places: the shardings.

    Returns:
        jitted ``ledger -> (ledger, Collected)``; it donates the ledger.
    """

    def run(state: TrainState) -> tuple[TrainState, Collected]:
        taken, pending = collector.take(state.pending, rows)
        return state._replace(pending=pending), taken

    return _jit(run, mesh, (places.ledger, places.collected))


class Updated(NamedTuple):
    """What an update did.

    Attributes:
        metrics: of the policy.
        batch: what it learned from.
        age: Steps that the policy has made since its oldest group was rolled out. int32[].
        report: of the rollouts after a screening, or None.
    """

    metrics: UpdateMetrics
    batch: RolloutBatch
    age: Array
    report: RoundReport | None


def make_update(
    selector: Selector,
    policy_update: UpdateFunction,
    mesh: AnyMesh,
    places: Places,
    *,
    advantages: AdvantageFunction | BeliefAdvantages,
    keep: int | None = None,
    mask_endless: bool = False,
    stop_ids: Sequence[int] = (),
) -> Callable:
    """Build the stage that ends a step: the policy learns from the groups, the step passes.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        mesh: the devices.
        places: the shardings.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`dpsjax.loop.collect.rollout_batch`.
        mask_endless: the loss does not see responses without an end.
        stop_ids: tokens that end a response.

    Returns:
        jitted ``(state, taken, rest, reference_params) -> (state, Updated)``; it donates the state.
        ``rest`` are the rollouts after a screening, or None, ``reference_params`` None without a KL
        penalty.
    """

    def run(
        state: TrainState, taken: Collected, rest: Groups | None, reference: PyTree
    ) -> tuple[TrainState, Updated]:
        report = None
        if rest is not None:
            report = later_report(state, taken, rest, stop_ids)
            state = state._replace(rollouts=state.rollouts + report.asked.sum(dtype=jnp.int32))
            taken = joined(taken, rest)
        masked = stop_ids if mask_endless else None
        batch = rollout_batch(taken, advantages, keep, selector, state.selector, masked)
        params, opt_state, metrics = policy_update(state.params, state.opt_state, batch, reference)
        if taken.slots is not None:  # it counted rows
            heads = jnp.where(taken.slots.place == 0, numerator_weight(batch), 0) != 0
            metrics = metrics._replace(groups=heads.sum(dtype=metrics.groups.dtype))
        age = jnp.where(taken.index >= 0, state.step - taken.step, 0).max()
        new = state._replace(
            params=params,
            opt_state=opt_state,
            selector=selectors.advance(selector, state.selector),
            step=state.step + 1,
        )
        return new, Updated(metrics, batch, age, report)

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    return _jit(run, mesh, (places.state, Updated(whole, split, whole, whole)))


def _jit(run: Callable, mesh: AnyMesh, places: Any, donate: bool = True) -> Callable:
    """A stage as one program; it donates its first argument."""
    options = compiler_options(mesh)
    first = 0 if donate else None
    return jax.jit(run, donate_argnums=first, out_shardings=places, compiler_options=options)
