"""Once, before training: a small, diverse subset of neither hopeless nor trivial prompts (DEPO).

arXiv 2509.01321, its offline stage: PageRank weights on a similarity graph, a weighted
determinantal subset, and a Gaussian preference for a pass rate.
"""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Float, Int, Key


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
