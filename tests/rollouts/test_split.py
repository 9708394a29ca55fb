"""Splits of a budget and subsets of rollouts against exhaustive search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import rollouts
from tests.oracles import selectors as oracle


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lowest", [0, 1])
def test_knapsack_is_the_best_of_all_splits(seed, lowest):
    rate = np.random.default_rng(seed).random(4)
    highest, budget = 7, 13
    value = rollouts.knapsack_value(jnp.asarray(rate), highest)

    def worth(p, n):
        return 0 if n < 2 else (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2

    table = [[worth(p, n) for n in range(highest + 1)] for p in rate]
    np.testing.assert_allclose(value, table, rtol=1e-12, atol=1e-15)
    split = np.asarray(jax.jit(rollouts.knapsack, static_argnums=(1, 2))(value, budget, lowest))
    assert split.sum() == budget and split.min() >= lowest and split.max() <= highest
    total = sum(table[b][n] for b, n in enumerate(split))
    assert abs(total - oracle.best_split(table, budget, lowest, highest)) < 1e-12
    with pytest.raises(ValueError, match="budget"):
        rollouts.knapsack(value, 4 * highest + 1)


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
def test_vip_is_the_best_of_all_splits(estimator):
    rate = np.array([0.5, 0.1, 0.97, 0.3])
    split = np.asarray(
        rollouts.vip_allocate(jnp.asarray(rate), 22, lowest=3, highest=9, estimator=estimator)
    )
    share = {"rloo": lambda n: 1 / (n - 1), "dr_grpo": lambda n: (n - 1) / n**2}[estimator]
    table = [[-p * (1 - p) * share(n) if n >= 3 else 0 for n in range(10)] for p in rate]
    total = sum(table[b][n] for b, n in enumerate(split))
    assert split.sum() == 22
    assert abs(total - oracle.best_split(table, 22, 3, 9)) < 1e-12
    with pytest.raises(ValueError, match="lowest"):
        rollouts.vip_allocate(jnp.asarray(rate), 22, lowest=1, highest=9)


def test_proportional_allocation():
    split = rollouts.allocate_proportional(jnp.asarray([1.0, 2.0, 0.0]), 12, 1)
    assert split.tolist() == [4, 7, 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_proportional_split_keeps_to_its_bounds(seed):
    """What one prompt may not have goes to the others: a share is the same multiple of a weight."""
    rng = np.random.default_rng(seed)
    weight = rng.random(6) ** 4
    weight[seed % 6] = 0
    lowest, highest, budget = 1, int(rng.integers(6, 15)), 30
    split = np.asarray(rollouts.allocate_proportional(jnp.asarray(weight), budget, lowest, highest))
    assert split.sum() == budget and split.min() >= lowest and split.max() <= highest
    exact = np.zeros(6)  # the next to reach the bound takes it, again and again
    free, left = set(range(6)), float(budget - 6 * lowest)
    while free:
        total = sum(weight[n] for n in free)
        over = {n for n in free if total > 0 and left * weight[n] / total > highest - lowest}
        for n in over or free:
            exact[n] = highest - lowest if over else left * weight[n] / total if total else 0
        left -= (highest - lowest) * len(over)
        free = free - over if over else set()
    if exact.sum() > budget - 6 * lowest - 0.5:  # those of weight 0 are not needed
        assert (abs(split - lowest - exact) < 1 + 1e-9).all()


@pytest.mark.parametrize("binary", [True, False])
def test_down_sampling_keeps_the_largest_variance(binary):
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, (30, 8)) if binary else rng.random((30, 8))
    rewards = rewards.astype(np.float32)
    for count in (1, 3, 4, 8):
        keep = np.asarray(rollouts.max_variance_subset(jnp.asarray(rewards), count))
        assert (keep.sum(axis=1) == count).all()
        for row, mask in zip(rewards.astype(np.float64), keep, strict=True):
            assert abs(np.var(row[mask]) - oracle.largest_variance(row, count)) < 1e-6
            if binary and count == 4 and 2 <= row.sum() <= 6:
                assert row[mask].sum() == 2


def released_subset(rewards, count):
    """Rewards kept by PODS's released loop: the first of the largest variance."""
    ranked = sorted(rewards, reverse=True)
    kept = ranked[:count]
    for high in range(count):
        tried = ranked[:high] + ranked[high - count :]
        if np.var(tried) > np.var(kept) + 1e-12:
            kept = tried
    return sorted(kept)


@pytest.mark.parametrize("count", range(1, 9))
def test_down_sampling_of_passes_is_that_of_the_release(count):
    """At an odd number too, where two splits are equally good."""
    rewards = np.array([[1.0] * passes + [0.0] * (8 - passes) for passes in range(9)])
    keep = np.asarray(rollouts.max_variance_subset(jnp.asarray(rewards), count))
    for row, mask in zip(rewards, keep, strict=True):
        assert sorted(row[mask]) == released_subset(row.tolist(), count)
