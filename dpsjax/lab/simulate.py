"""One run of a selector on a student, as one `lax.scan`: choose, roll out, observe, learn.

A step is a wave of B prompts times G rollouts, for every selector, so runs of equal steps are runs
of equal rollouts. A selector that fills its batches (dynamic sampling) spends several waves on an
update and so makes fewer updates. Seeds, hyperparameters and students are `vmap` axes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks, selectors
from dpsjax.lab.measures import (
    Calibration,
    believed_rate,
    calibrate,
    no_calibration,
    predicted_outcome,
)
from dpsjax.lab.students import Student
from dpsjax.selectors import Selector
from dpsjax.selectors.refill import Buffer, init_buffer, push, take
from dpsjax.types import Array, Bool, Float, Int, Key, PyTree, Shaped


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every contender of a comparison shares."""

    pool: int = 8000
    """N, prompts to choose from."""
    batch: int = 256
    """B, prompts rolled out in a step."""
    rollouts: int = 8
    """G, rollouts of each chosen prompt."""
    steps: int = 150
    """Steps of B times G rollouts."""
    delay: int = 0
    """Steps by which rollouts arrive late, as with a stale policy; 0 is on time."""

    def __post_init__(self):
        checks.require_counts(
            pool=self.pool, batch=self.batch, rollouts=self.rollouts, steps=self.steps
        )
        checks.require_counts(least=0, delay=self.delay)


class Contender(NamedTuple):
    """A selector and how it is used."""

    selector: Selector
    waves: int = 1  # at most so many waves for an update; more than 1 collects accepted groups
    oracle: bool = False  # rank by the true probability of a partly solved group instead
    predict: Callable = predicted_outcome  # (beliefs, group) -> float32[3, N] or None
    # (believed pass rates float[B], budget) -> int32[B] rollouts; None gives all prompts G
    allocate: Callable[[Array, int], Array] | None = None
    most: int = 32  # rollouts that `allocate` may give one prompt


class Groups(NamedTuple):
    """Rolled out groups; -1 in ``index`` is padding."""

    index: Int[Array, "B"]
    passes: Int[Array, "B"]
    trials: Int[Array, "B"]
    weight: Float[Array, "B"]


class Steps(NamedTuple):
    """Curves: one value a step."""

    rollouts: Int[Array, "S"]  # spent in the step
    groups: Int[Array, "S"]  # rolled out in the step
    effective: Int[Array, "S"]  # of them, with both passes and failures
    updated: Bool[Array, "S"]  # whether the student was trained
    coverage: Float[Array, "S"]  # share of the pool rolled out so far
    ability_pool: Float[Array, "S"]  # mean true solve probability after the step
    ability_held_out: Float[Array, "S"]
    brier: Float[Array, "S"]  # of P(partial) before the step, over the whole pool; NaN: no belief


class Run(NamedTuple):
    """What one run left."""

    steps: Steps
    visits: Int[Array, "N"]  # times each prompt was rolled out
    calibration: Calibration  # summed over prompts and steps
    groups: Groups | None  # [S, B], if recorded


class _Carry(NamedTuple):
    selector: PyTree
    student: PyTree
    late: Groups  # [delay, B], on their way
    pending: Buffer  # accepted and not yet trained on
    waited: Int[Array, ""]  # waves since the last update
    visits: Int[Array, "N"]
    calibration: Calibration


def uniforms(
    key: Key, step: Int[Array, ""] | int, setting: Setting, rollouts: int | None = None
) -> Float[Array, "B G"]:
    """The uniform numbers behind a step's rollouts: a rollout passes if its number is below p.

    Args:
        key: of the run.
        step: from 0.
        setting: sizes.
        rollouts: of each prompt, if not the setting's.

    Returns:
        float32[B, G] in [0, 1).

    Raises:
        TypeError: an argument is something else.
        ValueError: ``step`` is negative, or ``rollouts`` not positive.
    """
    checks.require_key(key=key)
    checks.require_type(Setting, "a Setting", setting=setting)
    checks.require_counts(**checks.given(rollouts=rollouts))
    if not isinstance(step, jax.Array):
        checks.require_counts(least=0, step=step)
    key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    shape = (setting.batch, setting.rollouts if rollouts is None else rollouts)
    return jax.random.uniform(key, shape, jnp.float32)


def _no_groups(*shape: int) -> Groups:
    none = jnp.zeros(shape, jnp.int32)
    return Groups(none - 1, none, none, jnp.zeros(shape, jnp.float32))


# Shows what the trackers of a chain believe: they come out as the part's state.
_show_beliefs = Selector(
    init=lambda num_prompts: (),
    propose=lambda key, proposal, state: (proposal, proposal.beliefs),
    observe=lambda evidence, state: (evidence, state),
)


def _choose(contender: Contender, key, state, size: int, partial: Array):
    """Select through the public interface; returns the batch, the state and the beliefs."""
    parts = [contender.selector, _show_beliefs]
    if contender.oracle:
        parts.append(selectors.stateless(lambda key, proposal: proposal.replace(score=partial)))
    outer = selectors.chain(*parts)
    states = (state, ()) + ((),) * contender.oracle
    batch, after = selectors.select(outer, key, selectors.ChainState(state.active, states), size)
    return batch, after.parts[0], after.parts[1]


def _deliver(late: Groups, fresh: Groups) -> tuple[Groups, Groups]:
    """The groups that arrive now, and those still on their way; late is [delay, B]."""
    if late.index.shape[0] == 0:
        return fresh, late
    arrived = jax.tree.map(lambda queue: queue[0], late)
    moved = jax.tree.map(lambda queue, new: jnp.concatenate([queue[1:], new[None]]), late, fresh)
    return arrived, moved


def _refill(pending: Buffer, waited, arrived: Groups, accept, waves: int):
    """Collect accepted groups until B are there, or ``waves`` waves are spent."""
    size = accept.shape[0]
    pending = push(pending, arrived, accept)
    ready = (pending.size >= size) | (waited + 1 >= waves)
    groups, valid, rest = take(pending, size)
    used = groups._replace(index=jnp.where(valid & ready, groups.index, -1))
    pending = jax.tree.map(lambda left, now: jnp.where(ready, left, now), rest, pending)
    return used, pending, jnp.where(ready, 0, waited + 1).astype(jnp.int32), ready


def _answer_some(contender: Contender, student, setting: Setting, key, state, step, index, beliefs):
    """As many answers to each prompt as the contender allocates, B times G in all."""
    rate = believed_rate(beliefs)[jnp.maximum(index, 0)]
    assert contender.allocate is not None
    number = contender.allocate(rate, setting.batch * setting.rollouts)
    draws = uniforms(key, step, setting, contender.most)
    made = jnp.arange(contender.most, dtype=jnp.int32)[None] < number[:, None]
    # No rate is above 1, so that a rollout which is not made never passes.
    passes, trials = student.answer(jnp.where(made, draws, 2.0), state, index)
    return passes, jnp.minimum(trials, number)


def _step(contender: Contender, student: Student, setting: Setting, key: Key, carry: _Carry, step):
    size = setting.batch
    truth = student.outcome(carry.student, setting.rollouts)
    select_key = jax.random.fold_in(jax.random.fold_in(key, 2), step)
    batch, state, beliefs = _choose(contender, select_key, carry.selector, size, truth[1])
    if contender.allocate is None:
        draws = uniforms(key, step, setting)
        passes, trials = student.answer(draws, carry.student, batch.index)
    else:
        passes, trials = _answer_some(
            contender, student, setting, key, carry.student, step, batch.index, beliefs
        )
    fresh = Groups(batch.index, passes, trials, batch.weight)

    arrived, late = _deliver(carry.late, fresh)
    accept, state = selectors.observe(
        contender.selector, state, arrived.index, arrived.passes, arrived.trials
    )
    late_weight = selectors.late_weights(contender.selector, state, arrived.index)
    arrived = arrived._replace(weight=arrived.weight * late_weight)
    if contender.waves == 1:
        used = arrived._replace(index=jnp.where(accept, arrived.index, -1))
        pending, waited, updated = carry.pending, carry.waited, accept.any()
    else:
        used, pending, waited, updated = _refill(
            carry.pending, carry.waited, arrived, accept, contender.waves
        )
    learned = student.learn(carry.student, *used)

    predicted = contender.predict(beliefs, setting.rollouts)
    now = no_calibration() if predicted is None else calibrate(predicted, truth)
    target = jnp.where(fresh.index < 0, setting.pool, fresh.index)
    visits = carry.visits.at[target].add((trials > 0).astype(jnp.int32), mode="drop")
    record = Steps(
        rollouts=trials.sum(dtype=jnp.int32),
        groups=(trials > 0).sum(dtype=jnp.int32),
        effective=((passes > 0) & (passes < trials)).sum(dtype=jnp.int32),
        updated=updated,
        coverage=(visits > 0).astype(jnp.float32).mean(),
        ability_pool=student.pass_rate(learned).mean(),
        ability_held_out=student.held_out(learned).mean(),
        brier=now.brier / now.prompts,
    )
    sums = jax.tree.map(jnp.add, carry.calibration, now)
    return _Carry(state, learned, late, pending, waited, visits, sums), (record, fresh)


def simulate(
    contender: Contender, student: Student, key: Key, setting: Setting, record: bool = False
) -> Run:
    """One run. Pure: jit it, and vmap it over keys, hyperparameters and students.

    Runs with the same key share the pool and the random numbers behind the rollouts, so
    contenders can be compared in pairs.

    Args:
        contender: the selector and how it is used.
        student: what answers and learns.
        key: of the run.
        setting: sizes, static.
        record: keep every group that was rolled out.

    Returns:
        curves, visits, calibration and, if asked, the groups.

    Raises:
        TypeError: if an argument is something else.
        ValueError: if ``contender.waves`` or ``contender.most`` is not positive.
    """
    checks.require_type(Contender, "a Contender", contender=contender)
    checks.require_type(Selector, "a Contender of a selector", contender=contender.selector)
    checks.require_counts(**{"contender.waves": contender.waves, "contender.most": contender.most})
    checks.require_type(Student, "a Student", student=student)
    checks.require_type(Setting, "a Setting", setting=setting)
    checks.require_key(key=key)
    size = setting.batch
    room = 2 * size - 1 if contender.waves > 1 else 1
    carry = _Carry(
        selector=contender.selector.init(setting.pool),
        student=student.init(jax.random.fold_in(key, 0), setting.pool),
        late=_no_groups(setting.delay, size),
        pending=init_buffer(_no_groups(), room),
        waited=jnp.zeros((), jnp.int32),
        visits=jnp.zeros(setting.pool, jnp.int32),
        calibration=no_calibration(),
    )
    body = functools.partial(_step, contender, student, setting, key)
    carry, (steps, groups) = jax.lax.scan(body, carry, jnp.arange(setting.steps, dtype=jnp.int32))
    return Run(steps, carry.visits, carry.calibration, groups if record else None)


def run_keys(seeds: int) -> Shaped[Array, "S"]:
    """Keys of runs 0..seeds-1; the same for every contender. At least one, or a ValueError."""
    checks.require_counts(seeds=seeds)
    return jax.vmap(jax.random.key)(jnp.arange(seeds, dtype=jnp.uint32))


def simulate_seeds(contender: Contender, student: Student, seeds: int, setting: Setting) -> Run:
    """The same contender on seeds 0..seeds-1, compiled once.

    Args:
        contender: the selector and how it is used.
        student: what answers and learns.
        seeds: how many runs.
        setting: sizes.

    Returns:
        a run whose arrays have a leading seed axis.
    """
    one = lambda key: simulate(contender, student, key, setting)  # noqa: E731
    return jax.jit(jax.vmap(one))(run_keys(seeds))


def sweep(
    make: Callable[[Array], Contender],
    values: Float[Array, "V"],
    student: Student,
    seeds: int,
    setting: Setting,
) -> Run:
    """A contender at every value of a hyperparameter, in one compilation.

    Args:
        make: a contender from one traced value, such as
            ``lambda decay: Contender(selectors.dps(decay=decay))``; traced once.
        values: float32[V].
        student: what answers and learns.
        seeds: runs for each value.
        setting: sizes.

    Returns:
        a run whose arrays have two leading axes, values and seeds.
    """

    def at(value):
        return jax.vmap(lambda key: simulate(make(value), student, key, setting))(run_keys(seeds))

    return jax.jit(jax.vmap(at))(values)
