"""How many rollouts each prompt gets, and which rollouts to learn from."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Bool, Float, Int


def quotas(shares: Float[Array, "S"], total: int) -> Int[Array, "S"]:
    """Whole numbers that add up to ``total``, as near to the shares as can be.

    Largest remainders first; equal ones by position.

    >>> import jax.numpy as jnp
    >>> quotas(jnp.array([0.5, 0.25, 0.25], jnp.float32), 10).tolist()
    [5, 3, 2]
    """
    exact = shares / shares.sum() * total
    whole = jnp.floor(exact)
    left = total - whole.sum().astype(jnp.int32)
    order = jnp.argsort(-(exact - whole), stable=True)
    place = jnp.arange(shares.shape[0], dtype=jnp.int32)
    rank = jnp.zeros(shares.shape, jnp.int32).at[order].set(place)
    return whole.astype(jnp.int32) + (rank < left).astype(jnp.int32)


def _bounds(size: int, budget: int, lowest: int, highest: int) -> None:
    checks.require_counts(budget=budget, highest=highest)
    checks.require_finite(lowest=lowest)
    if not 0 <= lowest <= highest or not size * lowest <= budget <= size * highest:
        raise ValueError(
            f"budget={budget} must lie in {size * lowest}..{size * highest}: {size} prompts with "
            f"lowest={lowest} to highest={highest} rollouts each"
        )


def knapsack_value(rate: Float[Array, "B"], highest: int) -> Float[Array, "B H"]:
    """Worth of 0..highest rollouts: ``(1 - p^n - (1-p)^n) p (1-p)^2``.

    Knapsack RL (arXiv 2509.25849): the chance of a non-zero gradient times a prompt's gain.

    Args:
        rate: believed pass rates in [0, 1].
        highest: H - 1, most rollouts of a prompt.

    Raises:
        TypeError: ``highest`` is no integer.
        ValueError: a rate is outside [0, 1], or ``highest`` below 1.
    """
    checks.require_range(0.0, 1.0, rate=rate)
    checks.require_counts(highest=highest)
    number = jnp.arange(highest + 1, dtype=jnp.int32).astype(rate.dtype)[None, :]
    p = rate[:, None]
    agree = p**number + (1 - p) ** number
    value = jnp.maximum(1 - agree, 0) * p * (1 - p) * (1 - p)
    return jnp.where(number < 2, 0, value)


def knapsack(value: Float[Array, "B H"], budget: int, lowest: int = 0) -> Int[Array, "B"]:
    """Split a budget of rollouts so that the total value is largest: exact dynamic programming.

    Args:
        value: value[b, n] of n rollouts of prompt b, n = 0..highest.
        budget: rollouts in all, spent exactly. O(B budget highest) time, O(B budget) memory.
        lowest: rollouts that every prompt gets.

    Returns:
        int32[B] that sums to ``budget``.

    Raises:
        ValueError: if the bounds do not allow the budget, or a value is not finite.
    """
    size, highest = value.shape[0], value.shape[1] - 1
    checks.require_range(-jnp.inf, jnp.inf, value=value)
    _bounds(size, budget, lowest, highest)
    worst = jnp.asarray(-jnp.inf, value.dtype)
    options = jnp.arange(lowest, highest + 1, dtype=jnp.int32)
    spent = jnp.arange(budget + 1, dtype=jnp.int32)

    def forward(best, row):
        before = spent[None, :] - options[:, None]
        total = best[jnp.maximum(before, 0)] + row[options][:, None]
        total = jnp.where(before >= 0, total, worst)
        pick = jnp.argmax(total, axis=0).astype(jnp.int32)
        return total.max(axis=0), options[pick]

    start = jnp.where(spent == 0, jnp.zeros((), value.dtype), worst)
    _, picks = jax.lax.scan(forward, start, value)

    def back(left, pick):
        return left - pick[left], pick[left]

    return jax.lax.scan(back, jnp.int32(budget), picks, reverse=True)[1]


def allocate_greedy(
    gain: Callable[[Int[Array, "B"]], Float[Array, "B"]],
    size: int,
    budget: int,
    lowest: int,
    highest: int,
) -> Int[Array, "B"]:
    """Give rollouts one by one to the prompt that gains most: exact for diminishing gains.

    Args:
        gain: gain of one more rollout where each prompt has n: ``int32[B] -> float[B]``.
        size: B.
        budget: rollouts in all.
        lowest: of each prompt.
        highest: of each prompt.

    Returns:
        int32[B] that sums to ``budget``; equal gains go to the earlier row.

    Raises:
        ValueError: if the bounds do not allow the budget.
    """
    _bounds(size, budget, lowest, highest)

    def give(_, number):
        more = jnp.where(number < highest, gain(number), -jnp.inf)
        return number.at[jnp.argmax(more)].add(1)

    start = jnp.full(size, lowest, jnp.int32)
    return jax.lax.fori_loop(0, budget - size * lowest, give, start)


def vip_allocate(
    rate: Float[Array, "B"],
    budget: int,
    lowest: int = 3,
    highest: int = 64,
    estimator: Literal["rloo", "dr_grpo"] = "dr_grpo",
) -> Int[Array, "B"]:
    """Split a budget so that the gradient's variance is least (VIP, arXiv 2602.01601).

    The variance of prompt b with n rollouts is ``p (1-p)/(n-1)`` (RLOO) or ``p (1-p) (n-1)/n^2``
    (Dr. GRPO); both are convex from n = 3 on, where giving one at a time is exact. Departure: the
    paper relaxes, bisects and rounds; this solves the same problem in whole numbers.

    Args:
        rate: believed pass rates.
        budget: rollouts in all.
        lowest: at least 3 (2 for RLOO).
        highest: of each prompt.
        estimator: which variance.

    Returns:
        int32[B] that sums to ``budget``.

    Raises:
        ValueError: if the bounds do not allow the budget, the variance is not convex there, or a
            rate is outside [0, 1].
    """
    checks.require_range(0.0, 1.0, rate=rate)
    if estimator not in ("rloo", "dr_grpo"):
        raise ValueError(f"estimator={estimator!r}: use 'rloo' or 'dr_grpo'")
    least = 2 if estimator == "rloo" else 3
    if lowest < least:
        raise ValueError(f"lowest={lowest} must be at least {least} for estimator={estimator!r}")

    def variance(number):
        n = number.astype(rate.dtype)
        share = 1 / (n - 1) if estimator == "rloo" else (n - 1) / (n * n)
        return rate * (1 - rate) * share

    def gain(number):
        return variance(number) - variance(number + 1)

    return allocate_greedy(gain, rate.shape[0], budget, lowest, highest)


def allocate_proportional(
    weight: Float[Array, "B"], budget: int, lowest: int = 0, highest: int | None = None
) -> Int[Array, "B"]:
    """Split a budget in proportion to weights, in whole numbers (CurES: to ``sqrt(p (1-p))``).

    What a prompt would get beyond the highest number goes to the others, in proportion.

    Args:
        weight: not negative, not all 0.
        budget: rollouts in all.
        lowest: that every prompt gets first.
        highest: of each prompt; no bound if not given.

    Returns:
        int32[B] that sums to ``budget``.

    Raises:
        ValueError: if the bounds do not allow the budget, or the weights are negative, not finite
            or all 0.
    """
    size = weight.shape[0]
    checks.require_range(0.0, jnp.inf, weight=weight)
    checks.require(weight.sum() > 0, "weight must not be 0 everywhere, got {weight}", weight=weight)
    _bounds(size, budget, lowest, budget if highest is None else highest)
    left = budget - lowest * size
    if highest is None:
        return lowest + quotas(weight, left)
    room = highest - lowest
    floor = jnp.asarray(jnp.finfo(weight.dtype).eps, weight.dtype) * weight.max()
    weight = jnp.maximum(weight, floor)  # a weight of 0 takes what no other has room for

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        short = jnp.minimum(middle * weight, room).sum() < left
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    bounds = jnp.zeros((), weight.dtype), room / floor
    share = jnp.minimum(jax.lax.fori_loop(0, 100, halve, bounds)[1] * weight, room)
    return lowest + quotas(jnp.where(left > 0, share, weight), left)


def max_variance_subset(rewards: Float[Array, "B G"], count: int) -> Bool[Array, "B G"]:
    """The rollouts to learn from: the subset of each group with the largest reward variance.

    PODS (arXiv 2504.13818): for some k it holds the k lowest and the ``count - k`` highest, so
    prefix sums of the sorted rewards find it in O(G log G). Of equally good splits it is
    the one that the released code meets first: the highest alone, then most of the lowest.

    Args:
        rewards: of G rollouts.
        count: m, 1..G.

    Returns:
        bool[B, G] with m True a row; equal rewards by position.

    Raises:
        TypeError: ``count`` is no integer.
        ValueError: if ``count`` is not in 1..G, or a reward is not finite.

    >>> rewards = jnp.array([[0, 1, 1, 1, 0, 1]], jnp.float32)
    >>> max_variance_subset(rewards, 4)[0].tolist()
    [True, True, True, False, True, False]
    """
    size = rewards.shape[1]
    checks.require_counts(count=count)
    checks.require_range(-jnp.inf, jnp.inf, rewards=rewards)
    if not 1 <= count <= size:
        raise ValueError(f"count must lie in 1..{size}, got {count}")
    order = jnp.argsort(rewards, axis=1, stable=True).astype(jnp.int32)
    centred = rewards - rewards.mean(axis=1, keepdims=True)  # keeps the difference of sums exact
    ranked = jnp.take_along_axis(centred, order, axis=1)

    def sums(values):
        """Sum of the k lowest and count - k highest, for k = 0..count."""
        prefix = jnp.pad(jnp.cumsum(values, axis=1), ((0, 0), (1, 0)))
        low = jnp.arange(count + 1, dtype=jnp.int32)
        return prefix[:, low] + prefix[:, -1:] - prefix[:, size - count + low]

    mean = sums(ranked) / count
    variance = sums(ranked * ranked) / count - mean * mean
    lows = jnp.arange(count + 1, dtype=jnp.int32)
    turn = jnp.where(lows == 0, 0, 1 + count - lows).astype(rewards.dtype)
    largest = variance.max(axis=1, keepdims=True)
    slack = 16 * jnp.finfo(rewards.dtype).eps * jnp.maximum(largest, 1)
    tied = variance >= largest - slack
    low = jnp.argmin(jnp.where(tied, turn[None, :], jnp.inf), axis=1).astype(jnp.int32)[:, None]
    place = jnp.arange(size, dtype=jnp.int32)[None, :]
    chosen = (place < low) | (place >= size - count + low)
    rank = jnp.argsort(order, axis=1).astype(jnp.int32)
    return jnp.take_along_axis(jnp.broadcast_to(chosen, rewards.shape), rank, axis=1)
