"""Parts that remember: each keeps a belief about every prompt and publishes it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, ema, gaussian, hmm, rows
from dpsjax.selectors.protocol import Evidence, Proposal, Selector
from dpsjax.types import Array, Bool, Float, Int


class StateBelief(NamedTuple):
    """Published by :func:`track_hmm`: probabilities of the state that a rollout would reveal."""

    prob: Float[Array, "K N"]


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
        a part that publishes a :class:`StateBelief`. Each ``observe`` is one time step.

    Raises:
        ValueError: as :func:`dpsjax.hmm.params` does.
    """
    checks.require_finite(decay=decay)
    params = hmm.params(num_states, decay, prior_alpha, prior_pi)

    def propose(key, proposal: Proposal, belief: hmm.Belief):
        del key
        return proposal.publish(StateBelief(hmm.prior(params, belief))), belief

    def observe(evidence: Evidence, belief: hmm.Belief):
        state = hmm.solve_state(evidence.passes, evidence.trials, params.pi.shape[0])
        return evidence, hmm.update(params, belief, evidence.index, state, unique_indices=True)

    def init(num_prompts: int) -> hmm.Belief:
        return hmm.init(params, num_prompts, counts_dtype)

    return Selector(init, propose, observe)


class BetaBelief(NamedTuple):
    """Published by :func:`track_beta`: pseudo-counts of success and failure."""

    a: Float[Array, "N"]
    b: Float[Array, "N"]


class AverageBelief(NamedTuple):
    """Published by :func:`track_average`."""

    value: Float[Array, "N"]
    change: Float[Array, "N"]  # at the last visit
    visits: Int[Array, "N"]


class GaussianBelief(NamedTuple):
    """Published by :func:`track_logit` and :func:`track_arc`."""

    mean: Float[Array, "N"]
    variance: Float[Array, "N"]


class Visits(NamedTuple):
    """Published by :func:`track_visits`."""

    times: Int[Array, "N"]  # steps in which the prompt was rolled out
    age: Int[Array, "N"]  # steps since then; since the start if never
    solved: Bool[Array, "N"]  # whether its last group all passed


def track_beta(decay=1.0, prior=(1.0, 1.0), forget_unseen=False) -> Selector:
    """Keep a Beta belief about each prompt's solve probability (MoPPS, arXiv 2507.04632).

    Args:
        decay: forgetting factor in [0, 1]; may be traced.
        prior: pseudo-counts before the first visit.
        forget_unseen: whether prompts are also forgotten while they are not seen (MoPPS: no).

    Returns:
        a part that publishes a :class:`BetaBelief`.
    """
    checks.require_finite(decay=decay)
    params = beta.params(decay, prior, forget_unseen)

    def propose(key, proposal: Proposal, belief: beta.Belief):
        del key
        return proposal.publish(BetaBelief(*beta.counts(params, belief))), belief

    def observe(evidence: Evidence, belief: beta.Belief):
        return evidence, beta.update(
            params, belief, evidence.index, evidence.passes, evidence.trials
        )

    return Selector(lambda num_prompts: beta.init(params, num_prompts), propose, observe)


def _in_unit_interval(name, value):
    value = jnp.asarray(value)
    checks.require(
        (value >= 0) & (value <= 1), f"{name} must lie in [0, 1], got {{value}}", value=value
    )


def pass_rate(evidence: Evidence) -> Float[Array, "B"]:
    """Share of the rollouts that passed; 0 where there were none."""
    dtype = jnp.result_type(float)
    return evidence.passes.astype(dtype) / jnp.maximum(evidence.trials, 1).astype(dtype)


def rollout_variance(evidence: Evidence) -> Float[Array, "B"]:
    """P (1 - p) of the group; equal for m and n - m passes, to the last bit."""
    dtype = jnp.result_type(float)
    product = evidence.passes * (evidence.trials - evidence.passes)
    square = jnp.maximum(evidence.trials * evidence.trials, 1)
    return product.astype(dtype) / square.astype(dtype)


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
        a part that publishes an :class:`AverageBelief`.

    Raises:
        ValueError: for a decay outside [0, 1].
    """
    checks.require_finite(decay=decay, start=start)
    _in_unit_interval("decay", decay)

    def propose(key, proposal: Proposal, belief: ema.Belief):
        del key
        return proposal.publish(AverageBelief(*belief)), belief

    def observe(evidence: Evidence, belief: ema.Belief):
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        seen = of(evidence)
        return evidence, ema.update(decay, belief, index, seen, first_visit_sets=first_visit_sets)

    return Selector(lambda num_prompts: ema.init(start, num_prompts), propose, observe)


def track_logit(process_noise=0.1, mean=0.0, variance=1.0) -> Selector:
    """Keep a Kalman filter of each prompt's logit (after KGPS, arXiv 2607.27610).

    Args:
        process_noise: variance that one training step adds; may be traced.
        mean: of the logit of prompts never seen.
        variance: of the same.

    Returns:
        a part that publishes a :class:`GaussianBelief` of the logit.

    Raises:
        ValueError: for a negative noise, or a variance that is not positive.
    """
    checks.require_finite(process_noise=process_noise, mean=mean, variance=variance)
    checks.require(
        (jnp.asarray(process_noise) >= 0) & (jnp.asarray(variance) > 0),
        "process_noise must not be negative, variance must be positive",
        process_noise=process_noise,
        variance=variance,
    )

    def propose(key, proposal: Proposal, belief: gaussian.Belief):
        del key
        published = GaussianBelief(belief.mean, gaussian.variance(belief))
        return proposal.publish(published), belief

    def observe(evidence: Evidence, belief: gaussian.Belief):
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        measured, error = gaussian.measure_logit(
            evidence.passes, evidence.trials, belief.mean.dtype
        )
        return evidence, gaussian.update(belief, index, measured, error, process_noise)

    return Selector(
        lambda num_prompts: gaussian.init(mean, variance, num_prompts), propose, observe
    )


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

    def init(num_prompts: int) -> VisitState:
        return VisitState(
            times=jnp.zeros(num_prompts, jnp.int32),
            last=jnp.zeros(num_prompts, jnp.int32),
            solved=jnp.zeros(num_prompts, bool),
            step=jnp.zeros((), jnp.int32),
        )

    def propose(key, proposal: Proposal, state: VisitState):
        del key
        visits = Visits(state.times, state.step - state.last, state.solved)
        return proposal.publish(visits), state

    def observe(evidence: Evidence, state: VisitState):
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        target = rows.scatter_index(index, state.times.shape[0])
        solved = (evidence.passes == evidence.trials) & (evidence.trials > 0)
        return evidence, VisitState(
            times=state.times.at[target].add(1, mode="drop"),
            last=state.last.at[target].set(state.step + 1, mode="drop"),
            solved=state.solved.at[target].set(solved, mode="drop"),
            step=state.step + 1,
        )

    return Selector(init, propose, observe)
