"""Simulated students: what a policy does to prompts, and what training on prompts does to it.

A :class:`Student` is a NamedTuple of pure functions, as a selector is. All families below are one
item-response model with different :class:`StudentParams`: prompt i is solved with probability

    p_i = sigmoid(difficulty_i + own_i + ability[topic_i] + shift_i [after the regime shift])

and is hopeless while it is locked. A group of G rollouts of which k passed carries the signal
``2 sqrt(k (G - k)) / G`` in [0, 1], the length of its normalised policy gradient; groups that all
pass or all fail carry none. Training on it raises ``own`` of that prompt, and ``ability``, which
held-out prompts share. These are caricatures: they rank selectors by mechanisms that are written
here, and prove nothing about a language model.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import group_outcome
from dpsjax.types import Array, Float, Int, Key, PyTree, Scalar

TOPICS = 16  # number of topics; a static size, so not a parameter
LEVELS = 5  # of difficulty, as categories
HOPELESS = -8.0  # logit of a locked prompt: solved once in 3,000 rollouts


class StudentParams(NamedTuple):
    """Scalars, which may be traced, so that a sweep over students is a ``vmap``."""

    mean: Scalar = -0.5  # of the difficulty, a logit
    spread: Scalar = 3.0  # standard deviation of the difficulty
    own_gain: Scalar = 0.5  # logits gained by a prompt at signal 1
    shared_gain: Scalar = 0.02  # logits gained by every prompt if the whole batch has signal 1
    repetition: Scalar = 0.0  # shared gain falls as exp(-repetition * signal already drawn)
    forgetting: Scalar = 0.0  # share of all gains lost by an update whose batch has signal 1
    topic_share: Scalar = 0.0  # of the difficulty's variance, and of the shared gain
    locked_share: Scalar = 0.0  # of prompts that unlock at some ability
    unlock_range: Scalar = 1.0  # they unlock at abilities spread evenly over [0, unlock_range]
    shift_step: Scalar = 1e9  # step of the regime shift
    shift_spread: Scalar = 0.0  # standard deviation of the difficulty's change, in logits
    false_pass: Scalar = 0.0  # probability that the verifier passes a wrong response
    false_fail: Scalar = 0.0  # probability that the verifier fails a right response
    hint_error: Scalar = 1.0  # standard deviation, in logits, of the difficulty known beforehand


# What the parameters may be; the others may be any finite number.
RANGES = {
    **dict.fromkeys(("spread", "repetition", "unlock_range", "shift_spread"), (0.0, jnp.inf)),
    **dict.fromkeys(("forgetting", "topic_share", "locked_share"), (0.0, 1.0)),
    **dict.fromkeys(("false_pass", "false_fail"), (0.0, 1.0)),
    "shift_step": (0.0, 2e9),
}


class StudentState(NamedTuple):
    """Prompts of the pool first, then the held-out ones: R = N + M rows."""

    difficulty: Float[Array, "R"]
    own: Float[Array, "R"]
    shift: Float[Array, "R"]
    gate: Float[Array, "R"]  # unlocked once the mean ability reaches it
    topic: Int[Array, "R"]
    dose: Float[Array, "R"]  # signal drawn from each prompt so far
    hint: Float[Array, "R"]  # the logit that is known beforehand
    ability: Float[Array, "C"]
    step: Int[Array, ""]


def _nothing_known(state: PyTree) -> dict[str, Array]:
    return {}


def _no_lag(state: PyTree, index: Array) -> Array:
    return jnp.zeros_like(index)


class Student(NamedTuple):
    """Pure functions; write your own the same way.

    ``init(key, num_prompts) -> state``;
    ``pass_rate(state) -> float32[N]``, the true probability of solving each prompt of the pool;
    ``held_out(state) -> float32[M]``, the same for prompts that are never trained on;
    ``outcome(state, group) -> float32[3, N]``, the true probability that none, some or all of
    ``group`` rollouts pass the verifier: the oracle;
    ``answer(uniforms[B, G], state, index[B]) -> (passes int32[B], trials int32[B])``;
    ``learn(state, index, passes, trials, weight) -> state``, one step of training on B groups,
    where a weight of 0 or an index of -1 leaves a group out;
    ``data(state) -> {name: array [N, ...]}``, what a curriculum may know of the pool before the
    first rollout, as selectors call it: ``difficulty`` float32[N] from 0 (always solved) to 100,
    ``level`` int32[N] of it, ``source`` and ``topic`` int32[N], ``features`` float32[N, F];
    ``lag(state, index[B]) -> int32[B]``, steps until the rollouts of each group arrive, from 0 to
    ``longest_lag``, which is static; 0 where all are there at once.
    """

    init: Callable[[Key, int], PyTree]
    pass_rate: Callable[[PyTree], Array]
    held_out: Callable[[PyTree], Array]
    outcome: Callable[[PyTree, int], Array]
    answer: Callable[[Array, PyTree, Array], tuple[Array, Array]]
    learn: Callable[[PyTree, Array, Array, Array, Array], PyTree]
    data: Callable[[PyTree], dict[str, Array]] = _nothing_known
    lag: Callable[[PyTree, Array], Array] = _no_lag
    longest_lag: int = 0


def signal(passes: Int[Array, "B"], trials: Int[Array, "B"]) -> Float[Array, "B"]:
    """Length of a group's normalised policy gradient, ``2 sqrt(k (G - k)) / G``.

    Args:
        passes: int32[B].
        trials: int32[B]; 0 gives 0.

    Returns:
        float32[B] in [0, 1].

    Raises:
        TypeError: a count is no integer.
        ValueError: lengths differ, or ``passes`` does not lie in [0, trials].
    """
    passes, trials = rows.rollout_counts(passes, trials)
    spread = (passes * (trials - passes)).astype(jnp.float32)
    return 2.0 * jnp.sqrt(spread) / jnp.maximum(trials, 1).astype(jnp.float32)


def graded(hard: Float[Array, "N"]) -> dict[str, Array]:
    """Columns of data of prompts that fail with a given chance: their difficulty and its level."""
    level = jnp.minimum(LEVELS * hard, LEVELS - 1).astype(jnp.int32)
    return {"difficulty": 100.0 * hard, "level": level}


def _init(params: StudentParams, key: Key, rows: int) -> StudentState:
    keys = jax.random.split(key, 6)
    normal = [jax.random.normal(k, (rows,), jnp.float32) for k in keys[:2]]
    topic = jax.random.randint(keys[2], (rows,), 0, TOPICS, jnp.int32)
    of_topic = jax.random.normal(keys[3], (TOPICS,), jnp.float32)[topic]
    share = jnp.float32(params.topic_share)
    level = jnp.sqrt(share) * of_topic + jnp.sqrt(1 - share) * normal[0]
    locked = jax.random.uniform(keys[4], (rows,), jnp.float32) < jnp.float32(params.locked_share)
    gate = jax.random.uniform(keys[5], (rows,), jnp.float32) * jnp.float32(params.unlock_range)
    difficulty = jnp.float32(params.mean) + jnp.float32(params.spread) * level
    error = jax.random.normal(jax.random.fold_in(key, 6), (rows,), jnp.float32)
    return StudentState(
        difficulty=difficulty,
        own=jnp.zeros(rows, jnp.float32),
        shift=jnp.float32(params.shift_spread) * normal[1],
        gate=jnp.where(locked, gate, -jnp.inf),
        topic=topic,
        dose=jnp.zeros(rows, jnp.float32),
        hint=difficulty + jnp.float32(params.hint_error) * error,
        ability=jnp.zeros(TOPICS, jnp.float32),
        step=jnp.zeros((), jnp.int32),
    )


def _solve_rate(params: StudentParams, state: StudentState) -> Float[Array, "R"]:
    shifted = state.step >= jnp.float32(params.shift_step).astype(jnp.int32)
    logit = state.difficulty + state.own + state.ability[state.topic]
    logit = logit + jnp.where(shifted, state.shift, 0.0)
    unlocked = state.ability.mean() >= state.gate
    return jax.nn.sigmoid(jnp.where(unlocked, logit, HOPELESS))


def _verdict_rate(params: StudentParams, solved: Array) -> Array:
    false_pass, false_fail = jnp.float32(params.false_pass), jnp.float32(params.false_fail)
    return solved * (1.0 - false_fail) + (1.0 - solved) * false_pass


def _credit(params: StudentParams, solved: Array) -> Array:
    """Share of the reward's variance that is due to the response and not to the verifier."""
    passed = _verdict_rate(params, solved)
    honest = 1.0 - jnp.float32(params.false_pass) - jnp.float32(params.false_fail)
    variance = passed * (1.0 - passed)
    share = honest * solved * (1.0 - solved) / jnp.maximum(variance, 1e-12)
    noiseless = honest == 1.0
    return jnp.where(noiseless, 1.0, share)


def _learn(params: StudentParams, state: StudentState, index, passes, trials, weight):
    rows, batch = state.own.shape[0], index.shape[0]
    source = jnp.maximum(index, 0)
    target = jnp.where(index < 0, rows, index)
    teach = signal(passes, trials) * weight * (index >= 0).astype(jnp.float32)
    teach = teach * _credit(params, _solve_rate(params, state)[source])
    novelty = jnp.exp(-jnp.float32(params.repetition) * state.dose[source])
    shared = jnp.float32(params.shared_gain) * teach * novelty / batch
    share = jnp.float32(params.topic_share)
    by_topic = jnp.zeros(TOPICS, jnp.float32).at[state.topic[source]].add(shared)
    kept = 1.0 - jnp.float32(params.forgetting) * jnp.clip(teach.mean(), 0.0, 1.0)
    gain = (1.0 - share) * shared.sum() + share * TOPICS * by_topic
    own = (state.own * kept).at[target].add(jnp.float32(params.own_gain) * teach, mode="drop")
    return state._replace(
        own=own,
        dose=state.dose.at[target].add(teach, mode="drop"),
        ability=state.ability * kept + gain,
        step=state.step + 1,
    )


def student(params: StudentParams, held_out: int = 512) -> Student:
    """The item-response student with these parameters.

    Args:
        params: scalars; traced ones make a sweep.
        held_out: M, the number of prompts that are never trained on; static.

    Returns:
        the student.

    Raises:
        TypeError: if ``params`` is something else, or ``held_out`` no integer.
        ValueError: if ``held_out`` is not positive, or a parameter is out of range.
    """
    checks.require_type(StudentParams, "a StudentParams", params=params)
    checks.require_counts(held_out=held_out)
    for name, value in params._asdict().items():
        low, high = RANGES.get(name, (-jnp.inf, jnp.inf))
        checks.require_scalar(low, high, **{name: value})

    def answer(uniforms, state, index):
        rate = _verdict_rate(params, _solve_rate(params, state)[jnp.maximum(index, 0)])
        real = (index >= 0).astype(jnp.int32)
        passes = (uniforms < rate[:, None]).astype(jnp.int32).sum(axis=1, dtype=jnp.int32)
        return passes * real, jnp.int32(uniforms.shape[1]) * real

    def outcome(state, group):
        rate = _verdict_rate(params, _solve_rate(params, state)[:-held_out])
        return group_outcome(rate, group)

    def data(state):
        hint, topic = state.hint[:-held_out], state.topic[:-held_out]
        hard = jax.nn.sigmoid(-hint)
        return {
            **graded(hard),
            "source": topic,
            "topic": topic,
            "features": jnp.column_stack([hint, jax.nn.one_hot(topic, TOPICS, dtype=jnp.float32)]),
        }

    return Student(
        init=lambda key, num_prompts: _init(params, key, num_prompts + held_out),
        pass_rate=lambda state: _solve_rate(params, state)[:-held_out],
        held_out=lambda state: _solve_rate(params, state)[-held_out:],
        outcome=outcome,
        answer=answer,
        learn=lambda state, *groups: _learn(params, state, *groups),
        data=data,
    )


def logit_normal(**changes) -> StudentParams:
    """Logit-normal difficulty; a trained prompt gains for itself and a little for all."""
    return StudentParams()._replace(**changes)


def slow(**changes) -> StudentParams:
    """A tenth of the gains: almost a fixed student, as late in training."""
    return StudentParams(own_gain=0.05, shared_gain=0.002)._replace(**changes)


def forgetting(**changes) -> StudentParams:
    """Every update erodes all gains, so prompts not revisited become hard again."""
    return StudentParams(own_gain=1.0, shared_gain=0.03, forgetting=0.05)._replace(**changes)


def regime_shift(**changes) -> StudentParams:
    """At step 75 every difficulty jumps by N(0, 2) logits: old beliefs are wrong."""
    return StudentParams(shift_step=75.0, shift_spread=2.0)._replace(**changes)


def unlocking(**changes) -> StudentParams:
    """Half of the prompts are hopeless until the shared ability reaches their gate."""
    return StudentParams(mean=0.5, locked_share=0.5)._replace(**changes)


def noisy_verifier(**changes) -> StudentParams:
    """A verifier that passes 5 % of wrong and fails 5 % of right responses.

    Groups that are mixed by its errors look informative and teach little.
    """
    return StudentParams(false_pass=0.05, false_fail=0.05)._replace(**changes)


def correlated_topics(**changes) -> StudentParams:
    """Sixteen topics share most of the difficulty and of the gain: breadth pays."""
    return StudentParams(topic_share=0.6)._replace(**changes)


def limited_lessons(**changes) -> StudentParams:
    """A prompt teaches only so much that generalises: held-out ability needs many prompts.

    Shared gain decays with the signal already drawn from a prompt, so its total is bounded, and
    held-out ability grows with the number of distinct informative prompts. This is what makes
    coverage matter.
    """
    return StudentParams(shared_gain=0.05, repetition=0.2)._replace(**changes)


# name on the command line -> parameters, at their defaults
STUDENTS: dict[str, Callable[[], StudentParams]] = {
    family.__name__.replace("_", "-"): family
    for family in (
        logit_normal,
        slow,
        forgetting,
        regime_shift,
        unlocking,
        noisy_verifier,
        correlated_topics,
        limited_lessons,
    )
}
