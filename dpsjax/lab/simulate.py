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
from dpsjax.lab.contenders import Contender
from dpsjax.lab.measures import Calibration, Run, Steps, calibrate, no_calibration
from dpsjax.lab.students import Student
from dpsjax.lab.waiting import Groups, Late, deliver, no_groups, refill
from dpsjax.rollouts import Buffer, init_buffer, push, take
from dpsjax.selectors import Batch, Selector
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


class _Game(NamedTuple):
    """What does not change during a run."""

    contender: Contender
    student: Student
    setting: Setting
    key: Key


class _Carry(NamedTuple):
    selector: PyTree
    student: PyTree
    late: Late
    pending: Buffer  # accepted and not yet trained on
    waited: Int[Array, ""]  # waves since the last update
    updates: Int[Array, ""]
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


def _choose(game: _Game, carry: _Carry, step, size: int) -> tuple[Batch, PyTree]:
    """Select through the public interface; the oracle's scores start at the true chances."""
    key = jax.random.fold_in(jax.random.fold_in(game.key, 2), step)
    selector, state = game.contender.selector, carry.selector
    if not game.contender.oracle:
        return selectors.select(selector, key, state, size)
    truth = game.student.outcome(carry.student, game.setting.rollouts)[1]
    ranked = selectors.stateless(lambda key, proposal: proposal.replace(score=truth))
    states = selectors.ChainState(state.active, ((), state))
    batch, after = selectors.select(selectors.chain(ranked, selector), key, states, size)
    return batch, after.parts[1]


def _answer(game: _Game, carry: _Carry, batch: Batch, draws: Float[Array, "B G"]) -> Groups:
    """The groups of a batch, all of as many rollouts as there are draws, or as allocated."""
    if game.contender.most is None:
        passes, trials = game.student.answer(draws, carry.student, batch.index)
    else:
        made = jnp.arange(draws.shape[1], dtype=jnp.int32)[None] < batch.trials[:, None]
        # No rate is above 1, so that a rollout which is not made never passes.
        draws = jnp.where(made, draws, 2.0)
        passes, trials = game.student.answer(draws, carry.student, batch.index)
        trials = jnp.minimum(trials, batch.trials)
    made_at = jnp.broadcast_to(carry.updates, batch.index.shape)
    return Groups(batch.index, passes, trials, batch.weight, made_at)


def _wave(game: _Game, carry: _Carry, step) -> tuple[_Carry, tuple[Steps, Groups]]:
    """Choose, roll out, observe what arrives, and learn from it or let it wait."""
    contender, student, setting = game.contender, game.student, game.setting
    batch, state = _choose(game, carry, step, setting.batch)
    draws = uniforms(game.key, step, setting, contender.most)
    fresh = _answer(game, carry, batch, draws)
    lag = student.lag(carry.student, batch.index) + setting.delay
    arrived, late = deliver(carry.late, fresh, lag, student.longest_lag > 0)
    at_once = contender.rounds == 1  # otherwise time passes at the update
    feedback, state = selectors.observe(
        contender.selector,
        state,
        arrived.index,
        arrived.passes,
        arrived.trials,
        age=carry.updates - arrived.made,
        advance=at_once,
    )
    arrived = arrived._replace(weight=arrived.weight * feedback.weight)
    if at_once:
        used = arrived._replace(index=jnp.where(feedback.accept, arrived.index, -1))
        pending, waited, updated = carry.pending, carry.waited, feedback.accept.any()
    else:
        used, pending, waited, updated = refill(
            carry.pending, carry.waited, arrived, feedback.accept, contender.rounds, setting.batch
        )
        state = _passed(game, state, updated)
    after = carry._replace(
        selector=state,
        student=student.learn(carry.student, *used[:4]),
        late=late,
        pending=pending,
        waited=waited,
    )
    return _recorded(game, carry, after, fresh, fresh.trials.sum(dtype=jnp.int32), updated)


def _passed(game: _Game, state: PyTree, updated: Bool[Array, ""]) -> PyTree:
    """The selector's state, a training step later if the student was trained."""
    advance = functools.partial(selectors.advance, game.contender.selector)
    return jax.lax.cond(updated, advance, lambda state: state, state)


def _screened(game: _Game, carry: _Carry, step) -> tuple[_Carry, tuple[Steps, Groups]]:
    """A wave that screens prompts, or one that gives those that passed the rest (SPEED).

    Both spend B times G rollouts, or a few less where it does not divide. Prompts that passed wait
    in turn; as soon as enough of them wait, a wave goes on with them and trains on them.
    """
    ready = carry.pending.size >= _screening(game.contender, game.setting).passed
    return jax.lax.cond(
        ready, functools.partial(_go_on, game), functools.partial(_screen, game), carry, step
    )


def _screen(game: _Game, carry: _Carry, step) -> tuple[_Carry, tuple[Steps, Groups]]:
    first, _, prompts, _ = _screening(game.contender, game.setting)
    batch, state = _choose(game, carry, step, prompts)
    draws = uniforms(game.key, step, game.setting, 2 * game.setting.rollouts).reshape(-1)
    fresh = _answer(game, carry, batch, draws[: prompts * first].reshape(prompts, first))
    rows = fresh.index, fresh.passes, fresh.trials
    feedback, state = selectors.observe(game.contender.selector, state, *rows, advance=False)
    fresh = fresh._replace(weight=fresh.weight * feedback.weight)
    after = carry._replace(
        selector=state,
        student=game.student.learn(carry.student, *no_groups(1)[:4]),
        pending=push(carry.pending, fresh, feedback.accept),
    )
    spent = fresh.trials.sum(dtype=jnp.int32)
    return _recorded(game, carry, after, fresh, spent, jnp.asarray(False))


def _go_on(game: _Game, carry: _Carry, step) -> tuple[_Carry, tuple[Steps, Groups]]:
    """The selector has seen these prompts; it does not learn again, as in a training loop."""
    _, rest, prompts, size = _screening(game.contender, game.setting)
    draws = uniforms(game.key, step, game.setting, 2 * game.setting.rollouts).reshape(-1)
    groups, _, left = take(carry.pending, size)
    draws = draws[-size * rest :].reshape(size, rest)
    more, tried = game.student.answer(draws, carry.student, groups.index)
    whole = groups._replace(passes=groups.passes + more, trials=groups.trials + tried)
    after = carry._replace(
        selector=selectors.advance(game.contender.selector, carry.selector),
        student=game.student.learn(carry.student, *whole[:4]),
        pending=left,
    )
    spent = tried.sum(dtype=jnp.int32)
    return _recorded(game, carry, after, no_groups(prompts), spent, jnp.asarray(True))


class _Screening(NamedTuple):
    """Rollouts of a prompt in a screening and after it, and prompts of either wave."""

    first: int
    rest: int
    prompts: int
    passed: int


def _screening(contender: Contender, setting: Setting) -> _Screening:
    assert contender.screen is not None
    first, rest = contender.screen
    budget = setting.batch * setting.rollouts
    return _Screening(first, rest, prompts=budget // first, passed=budget // rest)


def _judged(game: _Game, carry: _Carry) -> Calibration:
    """What the selector believed before the step, of every prompt, against the truth."""
    selector, group = game.contender.selector, game.setting.rollouts
    if not selectors.has_belief(selector, carry.selector):
        return no_calibration()
    believed = selectors.inspect(selector, carry.selector, group).outcome.astype(jnp.float32)
    return calibrate(believed, game.student.outcome(carry.student, group))


def _recorded(
    game: _Game,
    before: _Carry,
    after: _Carry,
    fresh: Groups,
    rollouts: Int[Array, ""],
    updated: Bool[Array, ""],
) -> tuple[_Carry, tuple[Steps, Groups]]:
    """The end of a step: its visits and its line of the curves."""
    student, passes, trials = game.student, fresh.passes, fresh.trials
    now = _judged(game, before)
    target = jnp.where(fresh.index < 0, game.setting.pool, fresh.index)
    visits = before.visits.at[target].add((trials > 0).astype(jnp.int32), mode="drop")
    line = Steps(
        rollouts=rollouts,
        groups=(trials > 0).sum(dtype=jnp.int32),
        effective=((passes > 0) & (passes < trials)).sum(dtype=jnp.int32),
        updated=updated,
        coverage=(visits > 0).astype(jnp.float32).mean(),
        ability_pool=student.pass_rate(after.student).mean(),
        ability_held_out=student.held_out(after.student).mean(),
        brier=now.brier / now.prompts,
    )
    after = after._replace(
        visits=visits,
        calibration=jax.tree.map(jnp.add, before.calibration, now),
        updates=before.updates + updated.astype(jnp.int32),
    )
    return after, (line, fresh)


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
        ValueError: if ``contender.rounds`` or ``contender.most`` is not positive, a screening does
            not fit, or the selector needs what is not known of the student's prompts.
    """
    _check(contender, student, key, setting)
    longest = setting.delay + student.longest_lag
    arriving = setting.batch * (longest + 1 if student.longest_lag else 1)
    room = 1 if contender.rounds == 1 else arriving + setting.batch - 1
    step = _wave
    if contender.screen is not None:
        _check_screening(contender, setting, longest)
        room, step = sum(_screening(contender, setting)[2:]), _screened
    learner = student.init(jax.random.fold_in(key, 0), setting.pool)
    carry = _Carry(
        selector=contender.selector.init(setting.pool, student.data(learner)),
        student=learner,
        late=Late(
            no_groups(longest, setting.batch), jnp.zeros((longest, setting.batch), jnp.int32)
        ),
        pending=init_buffer(no_groups(), room),
        waited=jnp.zeros((), jnp.int32),
        updates=jnp.zeros((), jnp.int32),
        visits=jnp.zeros(setting.pool, jnp.int32),
        calibration=no_calibration(),
    )
    body = functools.partial(step, _Game(contender, student, setting, key))
    carry, (steps, groups) = jax.lax.scan(body, carry, jnp.arange(setting.steps, dtype=jnp.int32))
    return Run(steps, carry.visits, carry.calibration, groups if record else None)


def _check(contender: Contender, student: Student, key: Key, setting: Setting) -> None:
    checks.require_type(Contender, "a Contender", contender=contender)
    checks.require_type(Selector, "a Contender of a selector", contender=contender.selector)
    given = {"contender.rounds": contender.rounds, "contender.most": contender.most}
    checks.require_counts(**checks.given(**given))
    checks.require_type(Student, "a Student", student=student)
    checks.require_type(Setting, "a Setting", setting=setting)
    checks.require_key(key=key)


def _check_screening(contender: Contender, setting: Setting, longest: int) -> None:
    pair = isinstance(contender.screen, tuple) and len(contender.screen) == 2
    checks.require_setting(pair, "contender.screen", contender.screen, "two numbers of rollouts")
    assert contender.screen is not None
    for name, number in zip(("screen[0]", "screen[1]"), contender.screen, strict=True):
        checks.require_counts(**{f"contender.{name}": number})
    first, rest, prompts, passed = _screening(contender, setting)
    if min(prompts, passed) < 1 or setting.pool < prompts:
        raise ValueError(
            f"batch={setting.batch} x rollouts={setting.rollouts} do not fit a screening of "
            f"{first} rollouts and {rest} more in a pool of {setting.pool}"
        )
    if longest or contender.most is not None:
        raise ValueError(f"screen={contender.screen} allows no delay and no allocation")


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
