"""What visits showed, remembered without a belief: averages and clocks, and scores of both."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import ema, rows
from dpsjax.belief.filter import clear_of
from dpsjax.selectors.base import Evidence, Selector
from dpsjax.selectors.score import from_view
from dpsjax.types import Array, Bool, Float, Int


def pass_rate(evidence: Evidence) -> Float[Array, "B"]:
    """Share of the prompt's rollouts that passed; 0 where there were none."""
    dtype = jnp.result_type(float)
    return evidence.passes.astype(dtype) / jnp.maximum(evidence.trials, 1).astype(dtype)


def rollout_variance(evidence: Evidence) -> Float[Array, "B"]:
    """P (1 - p) of the prompt's rollouts; equal for m and n - m passes, to the last bit."""
    dtype = jnp.result_type(float)
    product = evidence.passes * (evidence.trials - evidence.passes)
    square = jnp.maximum(evidence.trials * evidence.trials, 1)
    return product.astype(dtype) / square.astype(dtype)


class Average(NamedTuple):
    """Published by :func:`track_average`, beside a view where a pass rate is averaged."""

    value: Float[Array, "N"]
    change: Float[Array, "N"]  # at the last visit
    visits: Int[Array, "N"]


def track_average(
    of: Callable[[Evidence], Array], decay=0.9, start=0.5, first_visit_sets: bool = True
) -> Selector:
    """Keep an exponential moving average of what each visit shows.

    Args:
        of: what to average, from the evidence: :func:`pass_rate`, :func:`rollout_variance`, ...
        decay: weight of the past; may be traced.
        start: the value of prompts never seen.
        first_visit_sets: whether the first visit overwrites ``start``.

    Returns:
        a part that publishes an :class:`Average`, and a ``RateView`` if it is of the pass rate.

    Raises:
        ValueError: the decay is outside [0, 1].
    """
    checks.require_scalar(0.0, 1.0, decay=decay)
    checks.require_finite(start=start)

    def observe(evidence: Evidence, belief: ema.Belief):
        index, seen = clear_of(evidence.index, evidence.trials), of(evidence)
        return evidence, ema.observe(decay, belief, index, seen, first_visit_sets=first_visit_sets)

    def publish(belief: ema.Belief):
        average = Average(*belief)
        return (average, ema.RateView(belief.value)) if of is pass_rate else (average,)

    return Selector(
        init=lambda num_prompts, data=None: ema.init(start, num_prompts),
        observe=observe,
        publish=publish,
    )


class Visits(NamedTuple):
    """Published by :func:`track_visits`."""

    times: Int[Array, "N"]  # times the prompt was rolled out
    age: Int[Array, "N"]  # steps since then; since the start if never
    solved: Bool[Array, "N"]  # whether its last group all passed


class VisitState(NamedTuple):
    """State of :func:`track_visits`."""

    times: Int[Array, "N"]
    last: Int[Array, "N"]  # step after which the prompt was last seen
    solved: Bool[Array, "N"]
    step: Int[Array, ""]


def track_visits() -> Selector:
    """Remember how often and when each prompt was rolled out, and whether it was solved then.

    Returns:
        a part that publishes :class:`Visits`.
    """

    def init(num_prompts: int, data=None) -> VisitState:
        none = jnp.zeros(num_prompts, jnp.int32)
        return VisitState(none, none, jnp.zeros(num_prompts, bool), jnp.zeros((), jnp.int32))

    def observe(evidence: Evidence, state: VisitState):
        index = clear_of(evidence.index, evidence.trials)
        target = rows.scatter_index(index, state.times.shape[0])
        solved = (evidence.passes == evidence.trials) & (evidence.trials > 0)
        return evidence, VisitState(
            times=state.times.at[target].add(1, mode="drop"),
            last=state.last.at[target].set(state.step + 1, mode="drop"),
            solved=state.solved.at[target].set(solved, mode="drop"),
            step=state.step,
        )

    def publish(state: VisitState):
        return (Visits(state.times, state.step - state.last, state.solved),)

    return Selector(
        init=init,
        observe=observe,
        advance=lambda state: state._replace(step=state.step + 1),
        publish=publish,
    )


def add_average(scale=1.0) -> Selector:
    """The tracked average itself; needs :func:`track_average` before it.

    Args:
        scale: factor; may be traced.
    """
    checks.require_finite(scale=scale)

    def score(average: Average, key, ids):
        return jnp.asarray(scale, average.value.dtype) * average.value

    return from_view(score, Average, "add_average", "track_average")


def add_fewest_visits() -> Selector:
    """Minus the number of visits: each pass over the pool is without repeats.

    Returns:
        a part that needs :func:`track_visits` before it.
    """

    def score(visits: Visits, key, ids) -> Float[Array, "N"]:
        return -visits.times.astype(jnp.float32)

    return from_view(score, Visits, "add_fewest_visits", "track_visits")
