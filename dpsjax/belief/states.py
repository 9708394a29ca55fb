"""Solve states: from counts of passed rollouts, in exact integer arithmetic, and back to rates."""

import dataclasses
import functools
import itertools
import operator

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import noise, rows
from dpsjax.belief.filter import View
from dpsjax.types import Array, Float, Int, Key, Rows

# Cuts of the success rate, each (numerator, denominator, whether the cut itself lies above).
# A prompt's state is the number of cuts below its rate. Released evaluation code of DPS.
PARTITIONS: dict[int, tuple[tuple[int, int, bool], ...]] = {
    3: ((0, 1, False), (1, 1, True)),
    5: ((0, 1, False), (1, 3, True), (2, 3, False), (1, 1, True)),
    7: ((0, 1, False), (1, 5, True), (2, 5, True), (3, 5, False), (4, 5, False), (1, 1, True)),
}


def solve_state(passes: Rows, trials: Rows, num_states: int = 3) -> Int[Array, "B"]:
    """The state that a group of rollouts reveals, in exact integer arithmetic.

    Args:
        passes: int32[B], rollouts that passed.
        trials: int32[B], rollouts made.
        num_states: 3: none, some, all. 5 and 7: finer cuts of the success rate
            (:data:`PARTITIONS`). 2: 0 where the group agrees (none or all), 1 where it is mixed.

    Returns:
        int32[B] in 0..K-1; -1 where ``trials`` is 0, for nothing was seen.

    Raises:
        ValueError: for another number of states, or counts that are not 0 <= passes <= trials.
    """
    checks.require_counts(num_states=num_states)
    passes, trials = rows.rollout_counts(passes, trials)
    if num_states == 2:
        state = ((passes > 0) & (passes < trials)).astype(jnp.int32)
    elif num_states in PARTITIONS:
        state = partition_state(passes, trials, PARTITIONS[num_states])
    else:
        raise ValueError(f"num_states must be 2, 3, 5 or 7, got {num_states}: see partition_state")
    return jnp.where(trials > 0, state, -1)


def partition_state(
    passes: Rows, trials: Rows, cuts: tuple[tuple[int, int, bool], ...]
) -> Int[Array, "B"]:
    """The number of cuts below each success rate; your own partition as data.

    Args:
        passes: rollouts that passed.
        trials: rollouts made.
        cuts: K - 1 rising cuts as ``(numerator, denominator, whether the cut lies above)``.

    Returns:
        int32[B] in 0..K-1.

    Raises:
        TypeError: if ``passes`` or ``trials`` does not hold integers.
        ValueError: for unequal lengths, or ``cuts`` that are not as above.
    """
    passes = jnp.asarray(rows.counts("passes", passes))
    trials = jnp.asarray(rows.counts("trials", trials, length=passes.shape[0], of="passes"))
    _check_cuts(cuts)
    below = []
    for numerator, denominator, closed in cuts:
        excess = passes * denominator - numerator * trials
        below.append((excess >= 0 if closed else excess > 0).astype(jnp.int32))
    return functools.reduce(operator.add, below)


def _check_cuts(cuts) -> None:
    """Refuse cuts of another form, or that do not rise."""
    form = "cuts={!r} must be a tuple of (numerator, denominator, whether the cut lies above)"
    try:
        rates = [numerator / denominator for numerator, denominator, _ in cuts]
        whole = all(isinstance(part, int) and part >= 0 for cut in cuts for part in cut[:2])
    except (TypeError, ValueError, ZeroDivisionError):
        rates, whole = [], False
    if not (rates and whole):
        raise ValueError(form.format(cuts))
    if rates != sorted(rates):
        raise ValueError(f"cuts={cuts!r} must rise, got rates {rates}")


def merge_states(
    index: Int[Array, "B"], state: Int[Array, "B"], num_states: int
) -> tuple[Int[Array, "B"], Int[Array, "B"]]:
    """One row per prompt: repeats become padding, their states are pooled into the first row.

    Equal states stay. Different ones mean that some rollouts passed and some failed, so the pooled
    state is their mean, kept strictly between the lowest and the highest state (for K = 3:
    partial; for K = 2: state 1, which is partial there).

    Args:
        index: prompt ids, -1 is padding.
        state: solve states.
        num_states: K.

    Returns:
        ``(index, state)`` of the same length.

    """
    first, (total, rows_of, squares) = rows.merge_duplicates(
        index, state, jnp.ones_like(state), state * state
    )
    rows_of = jnp.maximum(rows_of, 1)
    same = total * total == rows_of * squares  # Cauchy-Schwarz: equality only if all are equal
    mean = jnp.round(total / rows_of).astype(jnp.int32)
    mixed = jnp.clip(mean, 1, max(num_states - 2, 1))
    return jnp.where(first, index, -1), jnp.where(same, state, mixed)


def pooled_state(left: Int[Array, "B"], right: Int[Array, "B"], num_states: int) -> Int[Array, "B"]:
    """The state that two groups of a prompt reveal together, as in :func:`merge_states`."""
    mean = jnp.clip((left + right + 1) // 2, 1, max(num_states - 2, 1))
    return jnp.where(left == right, left, mean)


def state_ranges(num_states: int) -> list[tuple[float, float]]:
    """Lowest and highest success rate of each state; (0, 1) for both states of K = 2.

    >>> state_ranges(3)
    [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    """
    if num_states == 2:
        return [(0.0, 1.0), (0.0, 1.0)]
    cuts = PARTITIONS.get(num_states)
    rates = [k / (num_states - 2) for k in range(num_states - 1)]
    rates = rates if cuts is None else [cut[0] / cut[1] for cut in cuts]
    return [(0.0, 0.0), *itertools.pairwise(rates), (1.0, 1.0)]


def partial_states(num_states: int) -> tuple[float, ...]:
    """Target weights that count every state between the lowest and the highest.

    With 2 states, state 1 is the partial one.

    Raises:
        ValueError: fewer than 2 states.

    >>> partial_states(3)
    (0.0, 1.0, 0.0)
    """
    checks.require_counts(least=2, num_states=num_states)
    if num_states == 2:
        return (0.0, 1.0)
    return tuple(float(0 < state < num_states - 1) for state in range(num_states))


def middle_state(num_states: int) -> tuple[float, ...]:
    """Target weights that count the middle state alone.

    Raises:
        ValueError: fewer than 2 states.

    >>> middle_state(5)
    (0.0, 0.0, 1.0, 0.0, 0.0)
    """
    checks.require_counts(least=2, num_states=num_states)
    middle = 1 if num_states == 2 else num_states // 2
    return tuple(float(state == middle) for state in range(num_states))


@dataclasses.dataclass(frozen=True)
class StateView(View):
    """What a chain over solve states says: P(state that a group would reveal)."""

    prob: Float[Array, "K N"]

    def rate(self) -> Float[Array, "N"]:
        """Lowest and highest state count as 0 and 1, those between as the middle of their cut."""
        ranges = zip(state_ranges(self.prob.shape[0]), self.prob, strict=True)
        lanes = [(low + high) / 2 * lane for (low, high), lane in ranges if high > 0]
        return functools.reduce(operator.add, lanes)

    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """The states, merged; with 2 states the one that agrees is split evenly."""
        del group  # the states are those of the groups that were seen
        if self.prob.shape[0] == 2:
            return jnp.stack([self.prob[0] / 2, self.prob[1], self.prob[0] / 2])
        some = functools.reduce(operator.add, self.prob[1:-1])
        return jnp.stack([self.prob[0], some, self.prob[-1]])

    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """A state, and a rate anywhere in its cut."""
        drawn = noise.row_uniform(key, ids, self.prob.dtype)
        below, rate = jnp.zeros_like(drawn), jnp.zeros_like(drawn)
        for state, (low, high) in enumerate(state_ranges(self.prob.shape[0])):
            lane = self.prob[state]
            within = (drawn - below) / jnp.where(lane > 0, lane, jnp.ones_like(lane))
            value = low + (high - low) * jnp.clip(within, 0, 1)
            if self.prob.shape[0] == 2 and state == 0:  # all alike: near 0 or near 1
                value = jnp.round(value)
            rate = jnp.where(drawn >= below, value, rate)
            below = below + lane
        return rate
