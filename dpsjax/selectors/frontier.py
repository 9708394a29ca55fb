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
from dpsjax.belief.filter import clear_of, ordered
from dpsjax.selectors.base import Evidence, Selector, chain, over_shards
from dpsjax.selectors.combine import cool_down as cooling
from dpsjax.selectors.draw import draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.pool import column
from dpsjax.selectors.score import add_mixed_prob
from dpsjax.types import Array, Float

_ITERATIONS = 4  # of Newton's method, from the weights of the step before


class Difficulty(NamedTuple):
    """State of :func:`track_difficulty`."""

    features: Float[Array, "N F"]
    weights: Float[Array, "F"]  # of the logit of the pass rate
    precision: Float[Array, "F F"]  # of the belief about them
    counts: beta.Belief  # what each prompt's own rollouts said, with forgetting


def track_difficulty(
    strength=8.0, decay=0.9, memory=0.9, ridge=1.0, source: str = "features"
) -> Selector:
    """Learn the logit of the pass rate as linear in features, and each prompt's departure from it.

    The weights have a Gaussian belief, moved by each step's groups to the mode of its product with
    their likelihood (Laplace's approximation). A group counts as the ``n (k + 1)/(k + n)``
    independent rollouts that it is worth where rates vary around the model as a Beta with k
    pseudo-counts does. The belief about a prompt is Beta(k m + passes, k (1 - m) + failures), m
    the model's rate, the counts faded by ``decay`` a step.

    Args:
        strength: k, pseudo-counts that the model is worth; may be traced.
        decay: of a prompt's own counts, each step; may be traced.
        memory: of the precision of the weights, each step; may be traced.
        ridge: precision of the weights before any rollout; may be traced.
        source: column of the data with the features, float[N, F]; they are standardised over the
            pool here, and a constant is added.

    Returns:
        a part that publishes a ``BetaView``.

    Raises:
        TypeError: a setting is no number.
        ValueError: one is out of its range.
    """
    checks.require_positive(strength=strength, ridge=ridge)
    checks.require_scalar(0.0, 1.0, memory=memory)
    params = beta.params(decay, (1.0, 1.0), forget_unseen=True)

    def init(num_prompts: int, data=None) -> Difficulty:
        dtype = jnp.result_type(float)
        known = column(data, source, num_prompts, dtype, "track_difficulty")
        known = known.reshape(num_prompts, -1)
        known = jnp.concatenate([known, jnp.ones((num_prompts, 1), dtype)], axis=1)
        size = known.shape[1]
        precision = jnp.asarray(ridge, dtype) * jnp.eye(size, dtype=dtype)
        return Difficulty(known, jnp.zeros(size, dtype), precision, beta.init(params, num_prompts))

    def observe(evidence: Evidence, state: Difficulty):
        index = clear_of(evidence.index, evidence.trials)
        dtype = state.weights.dtype
        known = jnp.where((index >= 0)[:, None], state.features[rows.gather_index(index)], 0)
        trials = jnp.where(index >= 0, evidence.trials, 0).astype(dtype)
        share = evidence.passes.astype(dtype) / jnp.maximum(trials, 1)
        kappa = jnp.asarray(strength, dtype)
        worth = trials * (kappa + 1) / (kappa + jnp.maximum(trials, 1))

        def newton(_, weights):
            rate = jax.nn.sigmoid(known @ weights)
            slope = known.T @ (worth * (share - rate))
            curve = (known * (worth * rate * (1 - rate))[:, None]).T @ known
            slope, curve = over_shards((slope, curve), evidence.axis_name)
            slope = slope - state.precision @ (weights - state.weights)
            return weights + jnp.linalg.solve(state.precision + curve, slope)

        weights = jax.lax.fori_loop(0, _ITERATIONS, newton, state.weights)
        rate = jax.nn.sigmoid(known @ weights)
        curve = (known * (worth * rate * (1 - rate))[:, None]).T @ known
        precision = state.precision + over_shards(curve, evidence.axis_name)
        own = beta.observe(params, state.counts, index, evidence.passes, evidence.trials)
        return evidence, Difficulty(state.features, weights, precision, own)

    def advance(state: Difficulty) -> Difficulty:
        kept = jnp.asarray(memory, state.precision.dtype)
        prior = jnp.asarray(ridge, kept.dtype) * jnp.eye(state.weights.shape[0], dtype=kept.dtype)
        precision = kept * state.precision + (1 - kept) * prior
        return state._replace(precision=precision, counts=beta.advance(state.counts))

    def publish(state: Difficulty):
        rate = jax.nn.sigmoid(state.features @ state.weights)
        kappa, floor = jnp.asarray(strength, rate.dtype), jnp.asarray(0.05, rate.dtype)
        passes, fails = beta.counts(params, state.counts)
        return (
            beta.BetaView(
                kappa * rate + passes - 1 + floor, kappa * (1 - rate) + fails - 1 + floor
            ),
        )

    return Selector(init, observe=observe, advance=advance, publish=publish)


def frontier(
    group: int = 8, power=4.0, strength=8.0, decay=0.9, memory=0.9, cool_down: int = 0
) -> Selector:
    """Draw in proportion to a power of the chance to be mixed, as a shared model believes it.

    Not a published method; ``docs/operators.md`` says where it wins and where not.

    Args:
        group: G rollouts.
        power: of the chance in the draw.
        strength: see :func:`track_difficulty`.
        decay: see :func:`track_difficulty`.
        memory: see :func:`track_difficulty`.
        cool_down: steps in which a prompt is not drawn again.

    Returns:
        the selector.
    """
    rest = [cooling(cool_down)] if cool_down else []
    return chain(
        track_difficulty(strength, decay, memory),
        add_mixed_prob(group),
        draw_proportional(power),
        *rest,
    )


ENTRIES = (Entry(frontier, needs=("features",)),)
