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
from dpsjax.lab.students import Known, Student
from dpsjax.lab.waiting import Groups, Late, deliver, no_groups, refill
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

    # or what makes it of what is known of the pool before the first rollout
    selector: Selector | Callable[[Known], Selector]
    waves: int = 1  # at most so many waves for an update; more than 1 collects accepted groups
    oracle: bool = False  # rank by the true probability of a partly solved group instead
    predict: Callable = predicted_outcome  # (beliefs, group) -> float32[3, N] or None
    # (believed pass rates float[B], budget) -> int32[B] rollouts; None gives all prompts G
    allocate: Callable[[Array, int], Array] | None = None
    most: int = 32  # rollouts that `allocate` may give one prompt
    # rollouts that decide whether a prompt gets the rest, up to `most`; 0: all at once
    screen: int = 0


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
    late: Late
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


# Shows what the trackers of a chain believe: they come out as the part's state.
_show_beliefs = Selector(
    init=lambda num_prompts: (),
    propose=lambda key, proposal, state: (proposal, proposal.beliefs),
    observe=lambda evidence, state: (evidence, state),
)


def _choose(contender: Contender, selector: Selector, key, state, size: int, partial: Array):
    """Select through the public interface; returns the batch, the state and the beliefs."""
    parts = [selector, _show_beliefs]
    if contender.oracle:
        parts.append(selectors.stateless(lambda key, proposal: proposal.replace(score=partial)))
    outer = selectors.chain(*parts)
    states = (state, ()) + ((),) * contender.oracle
    batch, after = selectors.select(outer, key, selectors.ChainState(state.active, states), size)
    return batch, after.parts[0], after.parts[1]


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


def _step(
    contender: Contender,
    selector: Selector,
    student: Student,
    setting: Setting,
    key: Key,
    carry: _Carry,
    step,
):
    size = setting.batch
    truth = student.outcome(carry.student, setting.rollouts)
    select_key = jax.random.fold_in(jax.random.fold_in(key, 2), step)
    batch, state, beliefs = _choose(contender, selector, select_key, carry.selector, size, truth[1])
    if contender.allocate is None:
        draws = uniforms(key, step, setting)
        passes, trials = student.answer(draws, carry.student, batch.index)
    else:
        passes, trials = _answer_some(
            contender, student, setting, key, carry.student, step, batch.index, beliefs
        )
    fresh = Groups(batch.index, passes, trials, batch.weight)

    lag = student.lag(carry.student, batch.index) + setting.delay
    arrived, late = deliver(carry.late, fresh, lag, student.longest_lag > 0)
    accept, state = selectors.observe(
        selector, state, arrived.index, arrived.passes, arrived.trials
    )
    late_weight = selectors.late_weights(selector, state, arrived.index)
    arrived = arrived._replace(weight=arrived.weight * late_weight)
    if contender.waves == 1:
        used = arrived._replace(index=jnp.where(accept, arrived.index, -1))
        pending, waited, updated = carry.pending, carry.waited, accept.any()
    else:
        used, pending, waited, updated = refill(
            carry.pending, carry.waited, arrived, accept, contender.waves, size
        )
    learned = student.learn(carry.student, *used)
    predicted = contender.predict(beliefs, setting.rollouts)
    now = no_calibration() if predicted is None else calibrate(predicted, truth)
    after = carry._replace(
        selector=state, student=learned, late=late, pending=pending, waited=waited
    )
    return _recorded(after, student, setting, fresh, trials.sum(dtype=jnp.int32), updated, now)


def _screened(
    contender: Contender,
    selector: Selector,
    student,
    setting: Setting,
    key: Key,
    carry: _Carry,
    step,
):
    """A wave that screens prompts, or one that gives those that passed the rest (SPEED).

    Both spend B times G rollouts, or a few less where it does not divide. Prompts that passed wait
    in turn; as soon as enough of them wait, a wave goes on with them and trains on them.
    """
    screen, rest = contender.screen, contender.most - contender.screen
    size, prompts = _screening(contender, setting)
    truth = student.outcome(carry.student, setting.rollouts)
    select_key = jax.random.fold_in(jax.random.fold_in(key, 2), step)
    batch, state, beliefs = _choose(
        contender, selector, select_key, carry.selector, prompts, truth[1]
    )
    draws = uniforms(key, step, setting, 2 * setting.rollouts).reshape(-1)
    first = draws[: prompts * screen]
    later = draws[-size * rest :]
    passes, trials = student.answer(first.reshape(prompts, screen), carry.student, batch.index)
    fresh = Groups(batch.index, passes, trials, batch.weight)
    accept, state = selectors.observe(selector, state, batch.index, passes, trials)
    pushed = push(carry.pending, fresh, accept)

    groups, valid, left = take(carry.pending, size)
    index = jnp.where(valid, groups.index, -1)
    more, tried = student.answer(later.reshape(size, rest), carry.student, index)
    whole = groups._replace(passes=groups.passes + more, trials=groups.trials + tried)

    goes_on = carry.pending.size >= size
    pick = lambda yes, no: jax.tree.map(lambda a, b: jnp.where(goes_on, a, b), yes, no)  # noqa: E731
    predicted = contender.predict(beliefs, setting.rollouts)
    after = carry._replace(
        selector=pick(carry.selector, state),
        student=student.learn(carry.student, *whole._replace(index=jnp.where(goes_on, index, -1))),
        pending=pick(left, pushed),
    )
    return _recorded(
        after,
        student,
        setting,
        fresh._replace(index=jnp.where(goes_on, -1, batch.index), trials=pick(0, fresh.trials)),
        pick(tried.sum(dtype=jnp.int32), fresh.trials.sum(dtype=jnp.int32)),
        goes_on,
        no_calibration() if predicted is None else calibrate(predicted, truth),
    )


def _screening(contender: Contender, setting: Setting) -> tuple[int, int]:
    """Prompts that go on in one wave, and prompts that are screened in one."""
    budget = setting.batch * setting.rollouts
    return budget // (contender.most - contender.screen), budget // contender.screen


def _recorded(
    carry: _Carry,
    student: Student,
    setting: Setting,
    fresh: Groups,
    rollouts: Array,
    updated: Array,
    now: Calibration,
) -> tuple[_Carry, tuple[Steps, Groups]]:
    """The end of a step: its visits and its line of the curves."""
    passes, trials = fresh.passes, fresh.trials
    target = jnp.where(fresh.index < 0, setting.pool, fresh.index)
    visits = carry.visits.at[target].add((trials > 0).astype(jnp.int32), mode="drop")
    line = Steps(
        rollouts=rollouts,
        groups=(trials > 0).sum(dtype=jnp.int32),
        effective=((passes > 0) & (passes < trials)).sum(dtype=jnp.int32),
        updated=updated,
        coverage=(visits > 0).astype(jnp.float32).mean(),
        ability_pool=student.pass_rate(carry.student).mean(),
        ability_held_out=student.held_out(carry.student).mean(),
        brier=now.brier / now.prompts,
    )
    sums = jax.tree.map(jnp.add, carry.calibration, now)
    return carry._replace(visits=visits, calibration=sums), (line, fresh)


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
        ValueError: if ``contender.waves`` or ``contender.most`` is not positive, or a screening
            does not fit.
    """
    checks.require_type(Contender, "a Contender", contender=contender)
    checks.require_counts(**{"contender.waves": contender.waves, "contender.most": contender.most})
    checks.require_counts(least=0, **{"contender.screen": contender.screen})
    checks.require_type(Student, "a Student", student=student)
    checks.require_type(Setting, "a Setting", setting=setting)
    checks.require_key(key=key)
    size, longest = setting.batch, setting.delay + student.longest_lag
    arriving = size * (longest + 1 if student.longest_lag else 1)
    room = arriving + size - 1 if contender.waves > 1 else 1
    step = _step
    if contender.screen:
        _check_screening(contender, setting, longest)
        room, step = sum(_screening(contender, setting)), _screened
    learner = student.init(jax.random.fold_in(key, 0), setting.pool)
    selector = contender.selector
    if not isinstance(selector, Selector) and callable(selector):
        selector = selector(student.known(learner))
    checks.require_type(Selector, "a Contender of a selector", contender=selector)
    carry = _Carry(
        selector=selector.init(setting.pool),
        student=learner,
        late=Late(no_groups(longest, size), jnp.zeros((longest, size), jnp.int32)),
        pending=init_buffer(no_groups(), room),
        waited=jnp.zeros((), jnp.int32),
        visits=jnp.zeros(setting.pool, jnp.int32),
        calibration=no_calibration(),
    )
    body = functools.partial(step, contender, selector, student, setting, key)
    carry, (steps, groups) = jax.lax.scan(body, carry, jnp.arange(setting.steps, dtype=jnp.int32))
    return Run(steps, carry.visits, carry.calibration, groups if record else None)


def _check_screening(contender: Contender, setting: Setting, longest: int) -> None:
    screen, most = contender.screen, contender.most
    if not 0 < screen < most:
        raise ValueError(f"screen={screen} must lie in 1..{most - 1}, with most={most} in all")
    if min(_screening(contender, setting)) < 1 or setting.pool < _screening(contender, setting)[1]:
        raise ValueError(
            f"batch={setting.batch} x rollouts={setting.rollouts} do not fit a screening of "
            f"{screen} rollouts and {most - screen} more in a pool of {setting.pool}"
        )
    if longest or contender.waves > 1 or contender.allocate is not None:
        raise ValueError(f"screen={screen} allows no delay, no waves and no allocation")


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
