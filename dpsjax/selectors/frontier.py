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
from dpsjax.selectors.base import Evidence, Proposal, Selector, chain, over_shards, stateless
from dpsjax.selectors.draw import draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.pool import column
from dpsjax.selectors.score import add_mixed_prob
from dpsjax.selectors.track import Visits, track_visits
from dpsjax.types import Array, Float


class Difficulty(NamedTuple):
    """State of :func:`track_difficulty`."""

    features: Float[Array, "N F"]
    weights: Float[Array, "F"]  # of the logit of the pass rate
    precision: Float[Array, "F F"]  # of the belief about them
    slope: Float[Array, "F"]  # of this step's log-likelihood, at the weights
    curve: Float[Array, "F F"]  # and minus its second derivative
    counts: Float[Array, "2 N"]  # passes and failures of each prompt, faded
    fade: Float[Array, ""]  # what this step will leave of them


def track_difficulty(
    strength=8.0, decay=0.15, memory=0.9, ridge=1.0, source: str = "features"
) -> Selector:
    """Learn the logit of the pass rate as linear in features, and each prompt's departure from it.

    The weights have a Gaussian belief, which each step's groups move by a step of Newton's method
    towards the mode of its product with their likelihood (an extended Kalman filter). A group
    counts as the ``n (k + 1)/(k + n)`` independent rollouts that it is worth where rates vary
    around the model as a Beta with k pseudo-counts does. The belief about a prompt is Beta(k m +
    passes + 1/20, k (1 - m) + failures + 1/20), m the model's rate.

    A prompt's own counts fade with what the policy has learned from others since: by ``decay`` in
    the time in which as many groups are seen as there are prompts.

    Args:
        strength: k, pseudo-counts that the model is worth; may be traced.
        decay: what a pass over the pool leaves of a prompt's own counts; may be traced.
        memory: of the precision of the weights, each step; may be traced.
        ridge: precision of the weights before any rollout; may be traced.
        source: column of the data with the features, float[N, F], best of mean 0
            and deviation 1; a constant is added.

    Returns:
        a part that publishes a ``BetaView``.

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
        return Difficulty(known, none, precision, none, square, counts, one)

    def observe(evidence: Evidence, state: Difficulty):
        index = clear_of(evidence.index, evidence.trials)
        dtype, here = state.weights.dtype, index >= 0
        known = jnp.where(here[:, None], state.features[rows.gather_index(index)], 0)
        trials = jnp.where(here, jnp.maximum(evidence.trials, 1), 1).astype(dtype)
        kappa = jnp.asarray(strength, dtype)
        worth = trials * (kappa + 1) / (kappa + trials)
        rate = jax.nn.sigmoid(known @ state.weights)
        slope = known.T @ (worth * (evidence.passes.astype(dtype) / trials - rate))
        curve = (known * (worth * rate * (1 - rate))[:, None]).T @ known
        size = jnp.asarray(state.counts.shape[1], dtype)
        sums = slope, curve, here.sum(dtype=dtype), size
        slope, curve, groups, size = over_shards(sums, evidence.axis_name)
        seen = jnp.stack([evidence.passes, evidence.trials - evidence.passes]).astype(dtype)
        target = rows.scatter_index(index, state.counts.shape[1])
        return evidence, state._replace(
            slope=state.slope + slope,
            curve=state.curve + curve,
            counts=state.counts.at[:, target].add(seen, mode="drop"),
            fade=state.fade * jnp.asarray(decay, dtype) ** (groups / size),
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
        )

    def publish(state: Difficulty):
        rate = jax.nn.sigmoid(state.features @ state.weights)
        kappa, floor = jnp.asarray(strength, rate.dtype), jnp.asarray(0.05, rate.dtype)
        passes, fails = state.counts
        return (beta.BetaView(kappa * rate + passes + floor, kappa * (1 - rate) + fails + floor),)

    return Selector(init, observe=observe, advance=advance, publish=publish)


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
    group: int = 8, power=4.0, spacing=0.65, strength=8.0, decay=0.15, memory=0.9
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
    return chain(
        track_difficulty(strength, decay, memory),
        add_mixed_prob(group),
        draw_proportional(power),
        space_out(spacing),
    )


ENTRIES = (Entry(frontier, needs=("features",)),)
