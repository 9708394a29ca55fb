"""Parts that remember: each keeps a belief about every prompt and publishes a view of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, ema, grid, hmm, kalman, rows
from dpsjax.belief.filter import Filter, clear_of
from dpsjax.belief.states import StateView
from dpsjax.selectors.base import Evidence, Selector
from dpsjax.types import Array, Bool, Float, Int


def track(filter: Filter) -> Selector:
    """Any filter as a part: it learns from every row, and publishes its view.

    Args:
        filter: see :class:`dpsjax.belief.filter.Filter`.

    Returns:
        the part; scores over any view follow it, and :func:`dpsjax.inspect` asks it.
    """

    def observe(evidence: Evidence, belief):
        seen = evidence.index, evidence.passes, evidence.trials
        return evidence, filter.observe(belief, *seen, evidence.axis_name)

    return Selector(
        init=lambda num_prompts, data=None: filter.init(num_prompts),
        observe=observe,
        advance=filter.advance,
        publish=lambda belief: (filter.view(belief),),
    )


def track_hmm(
    decay=0.5, prior_alpha=1.0, prior_pi=None, num_states: int = 3, counts_dtype=None
) -> Selector:
    """Filter each prompt with the hidden Markov model of DPS (arXiv 2603.10887).

    Args:
        decay: forgetting factor lambda in [0, 1]; may be traced. The paper uses 0.7 on MATH and
            0.5 elsewhere.
        prior_alpha: see :func:`dpsjax.hmm.params`.
        prior_pi: [K] belief before the first step.
        num_states: 2, 3, 5 or 7 states of the success rate.
        counts_dtype: see :func:`dpsjax.hmm.init`; ``bfloat16`` saves a quarter of the memory.

    Returns:
        a part that publishes a ``StateView``.

    Raises:
        ValueError: as :func:`dpsjax.hmm.params` does.
    """
    params = hmm.params(num_states, decay, prior_alpha, prior_pi)

    def observe(belief, index, passes, trials, axis_name):
        state = hmm.solve_state(passes, trials, params.pi.shape[0])
        return hmm.observe(params, belief, clear_of(index, trials), state)

    return track(
        Filter(
            init=lambda num_prompts: hmm.init(params, num_prompts, counts_dtype),
            observe=observe,
            advance=lambda belief: hmm.advance(params, belief),
            view=lambda belief: StateView(hmm.prior(params, belief)),
        )
    )


def track_beta(decay=1.0, prior=(1.0, 1.0), forget_unseen=False) -> Selector:
    """Keep a Beta belief about each prompt's solve probability (MoPPS, arXiv 2507.04632).

    Args:
        decay: forgetting factor in [0, 1]; may be traced.
        prior: pseudo-counts before the first visit.
        forget_unseen: whether prompts are also forgotten while they are not seen (MoPPS: no).

    Returns:
        a part that publishes a ``BetaView``.
    """
    params = beta.params(decay, prior, forget_unseen)

    def observe(belief, index, passes, trials, axis_name):
        return beta.observe(params, belief, index, passes, trials)

    return track(
        Filter(
            init=lambda num_prompts: beta.init(params, num_prompts),
            observe=observe,
            advance=beta.advance,
            view=lambda belief: beta.BetaView(*beta.counts(params, belief)),
        )
    )


def track_solve_rate(
    cells: int = 16, moves=(1.0, 46.0, 2.5, 0.5), decay=0.9, memory=0.9
) -> Selector:
    """Filter each prompt's solve rate on a grid, with moves that the prompts share.

    See :mod:`dpsjax.belief.grid` for the equations.

    Args:
        cells: K of the grid; a prompt costs K floats.
        moves: prior counts of moving a cell down, staying, moving up, and jumping.
        decay: of the counts of moves; may be traced.
        memory: weight of the past in what is believed of prompts never seen; may be traced.

    Returns:
        a part that publishes a ``GridView``.

    Raises:
        ValueError: as :func:`dpsjax.belief.grid.params` does.
    """
    checks.require_counts(least=3, cells=cells)
    params = grid.params(moves, decay, memory)
    return track(
        Filter(
            init=lambda num_prompts: grid.init(params, num_prompts, cells),
            observe=grid.observe,
            advance=lambda belief: grid.advance(params, belief),
            view=grid.GridView,
        )
    )


def track_logit(process_noise=0.1, mean=0.0, variance=1.0) -> Selector:
    """Keep a Kalman filter of each prompt's logit (after KGPS, arXiv 2607.27610).

    Args:
        process_noise: variance that one training step adds; may be traced.
        mean: of the logit of prompts never seen.
        variance: of the same.

    Returns:
        a part that publishes a ``GaussianView`` of the logit.

    Raises:
        ValueError: the noise is negative, or the variance not positive.
    """
    checks.require_scalar(0.0, jnp.inf, process_noise=process_noise)
    checks.require_scalar(-jnp.inf, jnp.inf, mean=mean)
    checks.require_positive(variance=variance)

    def observe(belief, index, passes, trials, axis_name):
        measured = kalman.measure_logit(passes, trials, belief.mean.dtype)
        return kalman.observe(belief, clear_of(index, trials), *measured)

    def view(belief):
        return kalman.GaussianView(belief.mean, kalman.variance(belief), jax.nn.sigmoid)

    return track(
        Filter(
            init=lambda num_prompts: kalman.init(mean, variance, num_prompts),
            observe=observe,
            advance=lambda belief: kalman.advance(belief, process_noise),
            view=view,
        )
    )


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
