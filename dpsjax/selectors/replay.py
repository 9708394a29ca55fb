"""Replay of what past groups were worth: prioritized levels, and DEPO's explorability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.protocol import Evidence, Proposal, Selector, stateless
from dpsjax.selectors.trackers import AverageBelief, Visits, rollout_variance
from dpsjax.types import Array, Bool, Float, Int, Key

BINS = 4096


def _total(value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def score_ranks(
    value: Float[Array, "N"], eligible: Bool[Array, "N"], axis_name: str | None = None
) -> Float[Array, "N"]:
    """1 + how many eligible rows are worth more, counted in 4096 buckets of value.

    Args:
        value: not negative.
        eligible: which rows count.
        axis_name: as in :func:`dpsjax.select`.

    Returns:
        ranks from 1, equal for rows of one bucket; no sort.
    """
    highest = jnp.max(jnp.where(eligible, value, 0))
    if axis_name is not None:
        highest = jax.lax.pmax(highest, axis_name)
    scale = jnp.where(highest > 0, (BINS - 1) / jnp.where(highest > 0, highest, 1), 0)
    bucket = jnp.clip((value * scale).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.zeros(BINS, jnp.int32).at[jnp.where(eligible, bucket, BINS)].add(1, mode="drop")
    counts = _total(counts, axis_name)
    above = counts.sum(dtype=jnp.int32) - jnp.cumsum(counts, dtype=jnp.int32)
    return (1 + above[bucket]).astype(value.dtype)


def prioritize(
    temperature=0.1, staleness=0.1, staleness_temperature=1.0, by_rank: bool = True
) -> Selector:
    """Replay probabilities of PLR (arXiv 2010.03934): worth and staleness.

    ``P = (1 - staleness) P_S + staleness P_C``: P_S in proportion to ``rank**(-1/temperature)``
    or, not by rank, ``value**(1/temperature)``; P_C to ``age**(1/staleness_temperature)``, the
    age in steps since the last visit. The score is P; follow it with :func:`draw_proportional`.

    Departures: ranks are counted in buckets, equal values share a rank; there is no separate
    probability of new levels: prompts never seen have the tracker's start value and the greatest
    age.

    Args:
        temperature: beta; 0.1 in the paper.
        staleness: rho; 0.1 in the paper.
        staleness_temperature: of P_C; 1 in the paper.
        by_rank: whether to rank, as the paper prefers.

    Returns:
        a part that needs :func:`track_average` and :func:`track_visits` before it.
    """
    checks.require_finite(
        temperature=temperature, staleness=staleness, staleness_temperature=staleness_temperature
    )

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        value = proposal.belief(AverageBelief, "prioritize", "track_average").value
        age = proposal.belief(Visits, "prioritize", "track_visits").age.astype(value.dtype)
        dtype = value.dtype
        if by_rank:
            log_worth = -jnp.log(score_ranks(value, proposal.eligible, proposal.axis_name))
        else:
            log_worth = jnp.log(jnp.maximum(value, jnp.asarray(jnp.finfo(dtype).tiny, dtype)))
        worth = _normalized(log_worth / jnp.asarray(temperature, dtype), proposal)
        log_age = jnp.log(jnp.maximum(age, jnp.asarray(jnp.finfo(dtype).tiny, dtype)))
        stale = _normalized(log_age / jnp.asarray(staleness_temperature, dtype), proposal)
        share = jnp.asarray(staleness, dtype)
        return proposal.replace(score=(1 - share) * worth + share * stale)

    return stateless(propose)


def _normalized(logit: Float[Array, "N"], proposal: Proposal) -> Float[Array, "N"]:
    """A softmax over the eligible rows of all shards."""
    logit = jnp.where(proposal.eligible, logit, -jnp.inf)
    highest = jnp.max(logit)
    if proposal.axis_name is not None:
        highest = jax.lax.pmax(highest, proposal.axis_name)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    weight = jnp.exp(logit - highest)
    total = _total(weight.sum(), proposal.axis_name)
    return weight / jnp.where(total > 0, total, 1)


def explorability(evidence: Evidence, entropy_limit=1.5) -> Float[Array, "B"]:
    """DEPO's worth of a group for exploration (arXiv 2509.01321), the mean over its rollouts.

    ``|advantage| * entropy * [passed, or entropy <= limit * mean entropy of those that passed]``,
    with the group-normalised advantage (population deviation; 0 if all rewards are equal).
    Without rewards and entropies of the rollouts every entropy counts as 1: ``2 sqrt(p (1-p))``.

    Args:
        evidence: with ``rewards`` in [0, 1] (passed: above 1/2) and ``entropies``.
        entropy_limit: lambda_H; 1.5 in the paper.

    Returns:
        [B].
    """
    if evidence.rewards is None or evidence.entropies is None:
        return 2 * jnp.sqrt(rollout_variance(evidence))
    dtype = evidence.entropies.dtype
    real = jnp.isfinite(evidence.entropies)
    entropy = jnp.where(real, evidence.entropies, 0)
    reward = jnp.where(real, evidence.rewards.astype(dtype), 0)
    count = jnp.maximum(real.sum(axis=1, keepdims=True, dtype=jnp.int32), 1).astype(dtype)
    deviation = jnp.where(real, reward - reward.sum(axis=1, keepdims=True) / count, 0)
    spread = jnp.sqrt((deviation * deviation).sum(axis=1, keepdims=True) / count)
    apart = (spread > 1e-6) & real
    advantage = jnp.where(apart, deviation / jnp.where(apart, spread, 1), 0)
    passed = real & (reward > 0.5)
    passes = jnp.maximum(passed.sum(axis=1, keepdims=True, dtype=jnp.int32), 1).astype(dtype)
    usual = jnp.where(passed, entropy, 0).sum(axis=1, keepdims=True) / passes
    kept = passed | (entropy <= jnp.asarray(entropy_limit, dtype) * usual)
    worth = jnp.where(kept, jnp.abs(advantage) * entropy, 0)
    return worth.sum(axis=1) / count[:, 0]


class HistoryState(NamedTuple):
    """State of :func:`track_explorability`."""

    past: Float[Array, "S N"]  # worth of the last S visits, a ring
    visits: Int[Array, "N"]


def track_explorability(history: int = 3, entropy_limit=1.5, unseen=jnp.inf) -> Selector:
    """Remember the mean explorability of each prompt's last visits (DEPO's replay).

    Args:
        history: s visits; the published number is not known.
        entropy_limit: see :func:`explorability`.
        unseen: value of prompts never seen; infinite, they come first.

    Returns:
        a part that publishes an :class:`AverageBelief`.
    """
    if checks.is_concrete(unseen) and unseen != unseen:
        raise ValueError(f"unseen={unseen!r} must be a number")
    checks.require_finite(entropy_limit=entropy_limit)
    checks.require_counts(history=history)

    def init(num_prompts: int) -> HistoryState:
        past = jnp.zeros((history, num_prompts), jnp.result_type(float))
        return HistoryState(past, jnp.zeros(num_prompts, jnp.int32))

    def propose(key: Key, proposal: Proposal, state: HistoryState):
        del key
        dtype = state.past.dtype
        length = jnp.clip(state.visits, 1, history).astype(dtype)
        mean = sum(state.past[slot] for slot in range(history)) / length
        value = jnp.where(state.visits == 0, jnp.asarray(unseen, dtype), mean)
        return proposal.publish(AverageBelief(value, jnp.zeros_like(value), state.visits)), state

    def observe(evidence: Evidence, state: HistoryState):
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        target = rows.scatter_index(index, state.visits.shape[0])
        slot = state.visits[rows.gather_index(index)] % history
        worth = explorability(evidence, entropy_limit).astype(state.past.dtype)
        slot, state = jax.lax.optimization_barrier((slot, state))
        return evidence, HistoryState(
            past=state.past.at[slot, target].set(worth, mode="drop"),
            visits=state.visits.at[target].add(1, mode="drop"),
        )

    return Selector(init, propose, observe)
