"""Prioritized level replay (arXiv 2010.03934): replay by worth and by staleness."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.base import Proposal, Selector, chain, over_shards, stateless
from dpsjax.selectors.chance import draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import Average, Visits, rollout_variance, track_average, track_visits
from dpsjax.types import Array, Bool, Float

# Defaults of the recipe and of its parts.
TEMPERATURE = 0.1
STALENESS = 0.1

BINS = 4096


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
    counts = over_shards(counts, axis_name)
    above = counts.sum(dtype=jnp.int32) - jnp.cumsum(counts, dtype=jnp.int32)
    return (1 + above[bucket]).astype(value.dtype)


def prioritize(
    temperature=TEMPERATURE, staleness=STALENESS, staleness_temperature=1.0, by_rank: bool = True
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

    Raises:
        TypeError: a setting is no number.
        ValueError: a temperature is not positive, or the share outside [0, 1].
    """
    checks.require_positive(temperature=temperature, staleness_temperature=staleness_temperature)
    checks.require_scalar(0.0, 1.0, staleness=staleness)

    def propose(key, proposal: Proposal) -> Proposal:
        value = proposal.belief(Average, "prioritize", "track_average").value
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
    total = over_shards(weight.sum(), proposal.axis_name)
    return weight / jnp.where(total > 0, total, 1)


def prioritized_replay(
    temperature=TEMPERATURE, staleness=STALENESS, decay=0.0, start=0.25, by_rank: bool = True
) -> Selector:
    """Prioritized level replay (arXiv 2010.03934) on p (1 - p), mixed with staleness.

    Departures: ranks are counted in 4,096 buckets of value, and there is no separate chance of new
    levels (:func:`prioritize`); the value is the variance of the rollouts, in place of the
    value loss that a policy without critic does not have.

    Args:
        temperature: beta; 0.1 in the paper.
        staleness: rho; 0.1 in the paper.
        decay: of the average of p (1 - p); 0 keeps the last group.
        start: value of prompts never seen; 1/4 is the largest possible.
        by_rank: by rank, as the paper prefers, or in proportion to the value.

    Returns:
        the selector.
    """
    return chain(
        track_visits(),
        track_average(rollout_variance, decay, start),
        prioritize(temperature, staleness, by_rank=by_rank),
        draw_proportional(),
    )


ENTRIES = (Entry(prioritized_replay, "2010.03934"),)
