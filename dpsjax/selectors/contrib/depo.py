"""DEPO (arXiv 2509.01321): a small, diverse subset first, then explorability with replay.

Once, before training: PageRank weights on a similarity graph, a weighted determinantal subset, and
a Gaussian preference for a pass rate. In training: the prompts whose past groups explored most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import clear_of, ordered
from dpsjax.selectors.base import Evidence, Selector, chain
from dpsjax.selectors.combine import mix
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import Average, add_average, rollout_variance
from dpsjax.selectors.recipes import uniform_epochs
from dpsjax.types import Array, Float, Int, Key

# Defaults of the recipe and of its parts.
ENTROPY_LIMIT = 1.5
HISTORY = 3


def pagerank(
    similarity: Float[Array, "N N"], damping=0.85, iterations: int = 50
) -> Float[Array, "N"]:
    """Stationary weights of a random walk on a similarity graph.

    ``w <- damping P w + (1 - damping)/N``, P the column-normalised similarities without the
    diagonal. The damping is PageRank's usual one; the paper's is not known to us.

    Args:
        similarity: symmetric, not negative.
        damping: in [0, 1).
        iterations: power iterations; the error shrinks by ``damping`` in each.

    Returns:
        weights that sum to 1.

    Raises:
        TypeError: ``iterations`` is no integer.
        ValueError: a similarity is negative or not finite, the damping outside [0, 1], or there are
            no iterations.
    """
    checks.require_range(0.0, jnp.inf, similarity=similarity)
    checks.require_range(0.0, 1.0, damping=damping)
    checks.require_counts(iterations=iterations)
    size = similarity.shape[0]
    links = similarity * (1 - jnp.eye(size, dtype=similarity.dtype))
    degree = links.sum(axis=0, keepdims=True)
    links = jnp.where(degree > 0, links / jnp.where(degree > 0, degree, 1), 1 / size)
    damping = jnp.asarray(damping, similarity.dtype)

    def step(_, weight):
        return damping * (links @ weight) + (1 - damping) / size

    uniform = jnp.full(size, 1 / size, similarity.dtype)
    return jax.lax.fori_loop(0, iterations, step, uniform)


def weighted_dpp_greedy(
    kernel: Float[Array, "N N"], weights: Float[Array, "N"], count: int
) -> Int[Array, "M"]:
    """Greedy subset Y of large ``det(kernel_Y) prod(weights_Y)``, by Cholesky updates.

    The gain of a row is its squared residual after projection on the rows taken (Chen et al.
    2018, arXiv 1709.05135); O(N count^2) time and O(N count) memory.

    Args:
        kernel: positive semi-definite similarities.
        weights: positive.
        count: m, at most N.

    Returns:
        int32[m] rows in the order taken; -1 once no row is left that adds volume.

    Raises:
        TypeError: ``count`` is no integer.
        ValueError: if ``count`` is not in 1..N, or the kernel or a weight cannot be.

    >>> kernel = jnp.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], jnp.float32)
    >>> weighted_dpp_greedy(kernel, jnp.array([1, 2, 1], jnp.float32), 2).tolist()
    [1, 2]
    """
    size, dtype = kernel.shape[0], kernel.dtype
    checks.require_counts(count=count)
    checks.require_range(-jnp.inf, jnp.inf, kernel=kernel)
    checks.require_range(0.0, jnp.inf, weights=weights)
    if not 1 <= count <= size:
        raise ValueError(f"count must lie in 1..{size}, got {count}")
    root = jnp.sqrt(weights.astype(dtype))
    diagonal = jnp.diagonal(kernel) * root * root
    smallest = jnp.asarray(size * jnp.finfo(dtype).eps, dtype) * diagonal.max()

    def step(number, carry):
        factor, residual, chosen = carry
        row = jnp.argmax(residual).astype(jnp.int32)
        gain = residual[row]
        useful = gain > smallest
        column = kernel[row] * root * root[row] - factor[row] @ factor.T
        column = jnp.where(useful, column / jnp.sqrt(jnp.where(useful, gain, 1)), 0)
        residual = (residual - column * column).at[row].set(-jnp.inf)
        factor = factor.at[:, number].set(column)
        return factor, residual, chosen.at[number].set(jnp.where(useful, row, -1))

    start = (jnp.zeros((size, count), dtype), diagonal, jnp.full(count, -1, jnp.int32))
    return jax.lax.fori_loop(0, count, step, start)[2]


def gaussian_difficulty_sample(
    key: Key, accuracy: Float[Array, "N"], count: int, mean=0.5, deviation=0.2
) -> Int[Array, "M"]:
    """Draw prompts without replacement in proportion to a Gaussian of their pass rate.

    ``p_i ~ exp(-((accuracy_i - mean)/deviation)^2 / 2)``. The paper tries means 0.25 and 0.75 and
    deviations 0.05 and 0.5; its defaults are not known to us.

    Args:
        key: a JAX random key.
        accuracy: pass rates in [0, 1].
        count: m, at most N.
        mean: mu.
        deviation: sigma.

    Returns:
        int32[m] distinct rows.

    Raises:
        TypeError: ``count`` is no integer.
        ValueError: if ``count`` is not in 1..N, a rate is outside [0, 1], or ``deviation`` is not
            positive.
    """
    checks.require_counts(count=count)
    checks.require_range(0.0, 1.0, accuracy=accuracy)
    checks.require_finite(mean=mean, deviation=deviation)
    checks.require(deviation > 0, "deviation must be above 0, got {deviation}", deviation=deviation)
    if not 1 <= count <= accuracy.shape[0]:
        raise ValueError(f"count must lie in 1..{accuracy.shape[0]}, got {count}")
    dtype = accuracy.dtype
    ratio = (accuracy - jnp.asarray(mean, dtype)) / jnp.asarray(deviation, dtype)
    noise = jax.random.gumbel(key, accuracy.shape, dtype)
    return jax.lax.top_k(noise - 0.5 * ratio * ratio, count)[1].astype(jnp.int32)


def explorability(evidence: Evidence, entropy_limit=ENTROPY_LIMIT) -> Float[Array, "B"]:
    """DEPO's worth of a group for exploration (arXiv 2509.01321), the mean over its rollouts.

    ``|advantage| * entropy * [passed, or entropy <= limit * mean entropy of those that passed]``,
    with the group-normalised advantage (population deviation; 0 if all rewards are equal).
    Without rewards and entropies of the rollouts every entropy counts as 1: ``2 sqrt(p (1-p))``.

    Args:
        evidence: with the extras ``rewards`` [B, G] in [0, 1] (passed: above 1/2) and
            ``entropies`` [B, G], NaN where there is no rollout.
        entropy_limit: lambda_H; 1.5 in the paper.

    Returns:
        [B].

    Raises:
        ValueError: the two differ in shape, or are not of a row for each group.
    """
    rewards, entropies = evidence.extras.get("rewards"), evidence.extras.get("entropies")
    if rewards is None or entropies is None:
        return 2 * jnp.sqrt(rollout_variance(evidence))
    if rewards.ndim != 2 or rewards.shape != entropies.shape:
        raise ValueError(
            "rewards and entropies must both be [B, G], a number for each rollout, got "
            f"{rewards.shape} and {entropies.shape}"
        )
    dtype = entropies.dtype
    real = jnp.isfinite(entropies)
    entropy = jnp.where(real, entropies, 0)
    reward = jnp.where(real, rewards.astype(dtype), 0)
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


def track_explorability(
    history: int = HISTORY, entropy_limit=ENTROPY_LIMIT, unseen=jnp.inf
) -> Selector:
    """Remember the mean explorability of each prompt's last visits (DEPO's replay).

    Args:
        history: s visits; the published number is not known.
        entropy_limit: see :func:`explorability`.
        unseen: value of prompts never seen; infinite, they come first.

    Returns:
        a part that publishes an :class:`Average`.

    Raises:
        TypeError: a setting is no number.
        ValueError: the limit is negative, or there is no visit to remember.
    """
    if checks.is_concrete(unseen) and unseen != unseen:
        raise ValueError(f"unseen={unseen!r} must be a number")
    checks.require_scalar(0.0, jnp.inf, entropy_limit=entropy_limit)
    checks.require_counts(history=history)

    def init(num_prompts: int, data=None) -> HistoryState:
        past = jnp.zeros((history, num_prompts), jnp.result_type(float))
        return HistoryState(past, jnp.zeros(num_prompts, jnp.int32))

    def observe(evidence: Evidence, state: HistoryState):
        index = clear_of(evidence.index, evidence.trials)
        target = rows.scatter_index(index, state.visits.shape[0])
        slot = state.visits[rows.gather_index(index)] % history
        worth = explorability(evidence, entropy_limit).astype(state.past.dtype)
        slot, state = ordered(slot, state)
        return evidence, HistoryState(
            past=state.past.at[slot, target].set(worth, mode="drop"),
            visits=state.visits.at[target].add(1, mode="drop"),
        )

    def publish(state: HistoryState):
        dtype = state.past.dtype
        length = jnp.clip(state.visits, 1, history).astype(dtype)
        mean = sum(state.past[slot] for slot in range(history)) / length
        value = jnp.where(state.visits == 0, jnp.asarray(unseen, dtype), mean)
        return (Average(value, jnp.zeros_like(value), state.visits),)

    return Selector(init, observe=observe, publish=publish)


def depo(history: int = HISTORY, entropy_limit=ENTROPY_LIMIT, explore=0.1) -> Selector:
    """DEPO's online stage (arXiv 2509.01321): explorability with replay.

    Most of the batch are the prompts of greatest mean explorability over their last visits, a
    share of it the least visited ones. For the offline stage see :func:`pagerank`,
    :func:`weighted_dpp_greedy` and :func:`gaussian_difficulty_sample`.

    Departures: shares are of the batch, drawn from the whole pool, instead of a cut of each loaded
    batch that shrinks linearly with the epoch. History and share are ours; these and the schedule
    were not published.

    Args:
        history: s, visits remembered.
        entropy_limit: lambda_H; 1.5 in the paper.
        explore: rho, share of the least visited; may be traced.

    Returns:
        the selector; give ``rewards`` and ``entropies`` to :func:`dpsjax.observe`.
    """
    checks.require_scalar(0.0, 1.0, explore=explore)  # by the recipe's name of it
    return chain(
        track_explorability(history, entropy_limit), add_average(), mix(uniform_epochs(), explore)
    )


ENTRIES = (Entry(depo, "2509.01321"),)
