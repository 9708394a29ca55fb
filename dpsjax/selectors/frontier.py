"""Frontier: a difficulty model shared by the prompts, counts of each prompt, a draw in proportion.

Not a published method. Most of a pool is seen a handful of times in a run, so what a prompt's own
rollouts say is little and old. Prompts that look alike are alike: a logistic model of features of
the prompt is learned from every rollout, forgets, and is the prior of the prompt's own counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, rows
from dpsjax.belief.filter import clear_of
from dpsjax.selectors.base import GROUP, Evidence, Proposal, Selector, chain, over_shards, stateless
from dpsjax.selectors.chance import draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import Visits, track_visits
from dpsjax.selectors.pool import column
from dpsjax.selectors.score import from_view
from dpsjax.types import Array, Float

# Defaults of the recipe and of its parts.
STRENGTH = 8.0
DECAY = 0.15
MEMORY = 0.9

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class FirmView(beta.BetaView):
    """Published by :func:`track_difficulty`: what a draw goes by."""


class Difficulty(NamedTuple):
    """State of :func:`track_difficulty`."""

    features: Float[Array, "N F"]
    weights: Float[Array, "F"]  # of the logit of the pass rate
    precision: Float[Array, "F F"]  # of the belief about them
    slope: Float[Array, "F"]  # of this step's log-likelihood, at the weights
    curve: Float[Array, "F F"]  # and minus its second derivative
    counts: Float[Array, "2 N"]  # passes and failures of each prompt, faded
    fade: Float[Array, ""]  # what this step will leave of them
    odds: Float[Array, "K"]  # log-chance of this step's groups, by each of STRENGTHS
    log_odds: Float[Array, "K"]  # and of those before


def track_difficulty(
    strength=STRENGTH, decay=DECAY, memory=MEMORY, ridge=1.0, source: str = "features"
) -> Selector:
    """Learn the logit of the pass rate as linear in features, and each prompt's departure from it.

    The weights have a Gaussian belief, which each step's groups move by a step of Newton's method
    towards the mode of its product with their likelihood (an extended Kalman filter). The belief
    about a prompt is Beta(k m + passes + 1/20, k (1 - m) + failures + 1/20), m the model's rate.

    Two beliefs are published. That of :func:`dpsjax.inspect` is calibrated: what the model is
    worth, k, is learned, as the geometric mean of a few strengths, weighted by the chance that each
    gave to the groups seen so far, before it saw them. A :class:`FirmView` for the draw, and the
    model's own learning, take it for worth ``strength``: a group then counts as ``n (k + 1)/(k +
    n)`` independent rollouts. A draw by it prefers prompts whose expected rate is in the middle to
    those of which little is known.

    A prompt's own counts fade with what the policy has learned from others since: by ``decay`` in
    the time in which as many groups are seen as there are prompts.

    Args:
        strength: k of the firm belief; may be traced.
        decay: what a pass over the pool leaves of a prompt's own counts; may be traced.
        memory: of the precision of the weights and of what k was learned from, each step; may be
            traced.
        ridge: precision of the weights before any rollout; may be traced.
        source: column of the data with the features, float[N, F], best of mean 0
            and deviation 1; a constant is added.

    Returns:
        a part that publishes a ``BetaView`` and a :class:`FirmView`.

    Raises:
        TypeError: a setting is no number.
        ValueError: one is out of its range.
    """
    checks.require_positive(strength=strength, ridge=ridge)
    checks.require_scalar(0.0, 1.0, decay=decay, memory=memory)

    def init(num_prompts: int, data=None) -> Difficulty:
        dtype = jnp.result_type(float)
        known = column(data, source, num_prompts, dtype, "track_difficulty")
        known = known.reshape(num_prompts, -1)
        known = jnp.concatenate([known, jnp.ones((num_prompts, 1), dtype)], axis=1)
        size = known.shape[1]
        none, square = jnp.zeros(size, dtype), jnp.zeros((size, size), dtype)
        precision = jnp.asarray(ridge, dtype) * jnp.eye(size, dtype=dtype)
        counts, one = jnp.zeros((2, num_prompts), dtype), jnp.ones((), dtype)
        odds = jnp.zeros(len(STRENGTHS), dtype)
        return Difficulty(known, none, precision, none, square, counts, one, odds, odds)

    def observe(evidence: Evidence, state: Difficulty):
        index = clear_of(evidence.index, evidence.trials)
        dtype, here = state.weights.dtype, index >= 0
        known = jnp.where(here[:, None], state.features[rows.gather_index(index)], 0)
        trials = jnp.where(here, jnp.maximum(evidence.trials, 1), 1).astype(dtype)
        kappa = jnp.asarray(strength, dtype)
        worth = trials * (kappa + 1) / (kappa + trials)
        rate = jax.nn.sigmoid(known @ state.weights)
        seen = jnp.stack([evidence.passes, evidence.trials - evidence.passes]).astype(dtype)
        odds = _log_chance(rate, state.counts[:, rows.gather_index(index)], seen)
        odds = jnp.where(here, odds, 0).sum(axis=1)
        slope = known.T @ (worth * (evidence.passes.astype(dtype) / trials - rate))
        curve = (known * (worth * rate * (1 - rate))[:, None]).T @ known
        size = jnp.asarray(state.counts.shape[1], dtype)
        sums = slope, curve, odds, here.sum(dtype=dtype), size
        slope, curve, odds, groups, size = over_shards(sums, evidence.axis_name)
        target = rows.scatter_index(index, state.counts.shape[1])
        return evidence, state._replace(
            slope=state.slope + slope,
            curve=state.curve + curve,
            counts=state.counts.at[:, target].add(seen, mode="drop"),
            fade=state.fade * jnp.asarray(decay, dtype) ** (groups / size),
            odds=state.odds + odds,
        )

    def advance(state: Difficulty) -> Difficulty:
        weights, precision = state.weights, state.precision + state.curve
        kept = jnp.asarray(memory, weights.dtype)
        prior = jnp.asarray(ridge, kept.dtype) * jnp.eye(weights.shape[0], dtype=kept.dtype)
        return Difficulty(
            state.features,
            weights + jnp.linalg.solve(precision, state.slope),
            kept * precision + (1 - kept) * prior,
            jnp.zeros_like(state.slope),
            jnp.zeros_like(state.curve),
            state.fade * state.counts,
            jnp.ones_like(state.fade),
            jnp.zeros_like(state.odds),
            kept * (state.log_odds + state.odds),
        )

    def publish(state: Difficulty):
        rate = jax.nn.sigmoid(state.features @ state.weights)
        calibrated = _counts(_strength(state), rate, state.counts)
        firm = _counts(jnp.asarray(strength, rate.dtype), rate, state.counts)
        return beta.BetaView(*calibrated), FirmView(*firm)

    return Selector(init, observe=observe, advance=advance, publish=publish)


def _strength(state: Difficulty) -> Float[Array, ""]:
    """The pseudo-counts that the model is worth, as far as is known."""
    share = jax.nn.softmax(state.log_odds)
    return jnp.exp(share @ jnp.log(jnp.asarray(STRENGTHS, share.dtype)))


def _counts(kappa: Array, rate: Array, own: Array) -> tuple[Array, Array]:
    """Pseudo-counts (a, b) from the model's rates [M] and the prompts' own counts [2, M]."""
    floor = jnp.asarray(0.05, rate.dtype)
    return kappa * rate + own[0] + floor, kappa * (1 - rate) + own[1] + floor


def _log_chance(
    rate: Float[Array, "B"], own: Float[Array, "2 B"], seen: Float[Array, "2 B"]
) -> Float[Array, "K B"]:
    """Log-probability of the rollouts seen, in their order, under each of ``STRENGTHS``."""
    kappa = jnp.asarray(STRENGTHS, rate.dtype)[:, None]
    a, b = _counts(kappa, rate[None], own[:, None])  # [K, B]
    lgamma = jax.scipy.special.gammaln  # betaln has float32's precision in float64
    rising = lgamma(a + seen[:1]) - lgamma(a) + lgamma(b + seen[1:]) - lgamma(b)
    return rising - lgamma(a + b + seen.sum(axis=0)[None]) + lgamma(a + b)


def space_out(share=0.65) -> Selector:
    """Keep apart the visits of a prompt: it rests for a share of the steps of a pass over the pool.

    With 1 every prompt comes once a pass, whatever its score, as in shuffled epochs; the lower the
    share, the more the scores decide. Where too few prompts are rested, others are drawn.

    Args:
        share: of ``N / B`` steps, in [0, 1]; may be traced.

    Returns:
        a part.

    Raises:
        TypeError: ``share`` is no number.
        ValueError: it is outside [0, 1].
    """
    checks.require_scalar(0.0, 1.0, share=share)

    def propose(key, proposal: Proposal) -> Proposal:
        visits = proposal.belief(Visits, "space_out", "track_visits")
        prompts = over_shards(proposal.eligible.sum(dtype=jnp.int32), proposal.axis_name)
        steps = jnp.asarray(share, jnp.float32) * prompts.astype(jnp.float32) / proposal.batch_size
        resting = (visits.times > 0) & (visits.age < jnp.ceil(steps).astype(jnp.int32) - 1)
        return proposal.bar(resting, strict=False)

    return chain(track_visits(), stateless(propose))


def frontier(
    group: int = GROUP, power=4.0, spacing=0.65, strength=STRENGTH, decay=DECAY, memory=MEMORY
) -> Selector:
    """Draw in proportion to a power of the chance to be mixed, as prompts that look alike suggest.

    Not a published method. What is known of a prompt is soon old: the policy learns from the
    others, too. So prompts rest for most of a pass over the pool, and among the rested ones a
    model of their features, which learns every step, says which are likely to be mixed now.
    ``docs/operators.md`` says where it wins and where not.

    Args:
        group: G rollouts.
        power: of the chance in the draw; may be traced.
        spacing: see :func:`space_out`.
        strength: see :func:`track_difficulty`.
        decay: see :func:`track_difficulty`.
        memory: see :func:`track_difficulty`.

    Returns:
        the selector.
    """
    checks.require_counts(least=2, group=group)
    mixed = from_view(
        lambda view, key, ids: view.mixed(group), FirmView, "frontier", "track_difficulty"
    )
    return chain(
        track_difficulty(strength, decay, memory),
        mixed,
        draw_proportional(power),
        space_out(spacing),
    )


ENTRIES = (Entry(frontier, needs=("features",)),)
