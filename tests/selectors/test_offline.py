"""Subsets, weights and allocations against exhaustive search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import selectors
from tests.oracles import selectors as oracle


def kernel(seed, size, rank):
    features = np.random.default_rng(seed).normal(size=(size, rank))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


@pytest.mark.parametrize("seed", range(4))
def test_weighted_dpp_is_greedy_on_the_determinant(seed):
    similarity = kernel(seed, 14, 9)
    weights = np.random.default_rng(seed).random(14) + 0.5
    pick = jax.jit(selectors.weighted_dpp_greedy, static_argnums=2)
    found = pick(jnp.asarray(similarity), jnp.asarray(weights), 7).tolist()
    assert found == oracle.dpp_greedy(similarity, weights, 7)


def test_weighted_dpp_stops_when_no_volume_is_left():
    similarity = kernel(0, 10, 3)
    found = selectors.weighted_dpp_greedy(jnp.asarray(similarity), jnp.ones(10), 6).tolist()
    assert all(n >= 0 for n in found[:3]) and found[3:] == [-1, -1, -1]
    with pytest.raises(ValueError, match="count"):
        selectors.weighted_dpp_greedy(jnp.asarray(similarity), jnp.ones(10), 11)


def test_pagerank_is_the_stationary_law():
    similarity = abs(kernel(3, 12, 4))
    found = selectors.pagerank(jnp.asarray(similarity), 0.85, iterations=200)
    np.testing.assert_allclose(found, oracle.pagerank(similarity, 0.85), rtol=1e-10)
    assert abs(float(found.sum()) - 1) < 1e-12


def test_gaussian_difficulty_sample_prefers_the_middle():
    accuracy = jnp.linspace(0, 1, 11)
    draws = 4000
    pick = jax.jit(jax.vmap(lambda k: selectors.gaussian_difficulty_sample(k, accuracy, 1)[0]))
    share = np.bincount(pick(jax.random.split(jax.random.key(0), draws)), minlength=11) / draws
    truth = np.exp(-(((np.linspace(0, 1, 11) - 0.5) / 0.2) ** 2) / 2)
    truth /= truth.sum()
    assert (abs(share - truth) < 5 * np.sqrt(truth * (1 - truth) / draws)).all()
    many = selectors.gaussian_difficulty_sample(jax.random.key(1), accuracy, 11)
    assert sorted(many.tolist()) == list(range(11))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lowest", [0, 1])
def test_knapsack_is_the_best_of_all_splits(seed, lowest):
    rate = np.random.default_rng(seed).random(4)
    highest, budget = 7, 13
    value = selectors.knapsack_value(jnp.asarray(rate), highest)

    def worth(p, n):
        return 0 if n < 2 else (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2

    table = [[worth(p, n) for n in range(highest + 1)] for p in rate]
    np.testing.assert_allclose(value, table, rtol=1e-12, atol=1e-15)
    split = np.asarray(jax.jit(selectors.knapsack, static_argnums=(1, 2))(value, budget, lowest))
    assert split.sum() == budget and split.min() >= lowest and split.max() <= highest
    total = sum(table[b][n] for b, n in enumerate(split))
    assert abs(total - oracle.best_split(table, budget, lowest, highest)) < 1e-12
    with pytest.raises(ValueError, match="budget"):
        selectors.knapsack(value, 4 * highest + 1)


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
def test_vip_is_the_best_of_all_splits(estimator):
    rate = np.array([0.5, 0.1, 0.97, 0.3])
    split = np.asarray(
        selectors.vip_allocate(jnp.asarray(rate), 22, lowest=3, highest=9, estimator=estimator)
    )
    share = {"rloo": lambda n: 1 / (n - 1), "dr_grpo": lambda n: (n - 1) / n**2}[estimator]
    table = [[-p * (1 - p) * share(n) if n >= 3 else 0 for n in range(10)] for p in rate]
    total = sum(table[b][n] for b, n in enumerate(split))
    assert split.sum() == 22
    assert abs(total - oracle.best_split(table, 22, 3, 9)) < 1e-12
    with pytest.raises(ValueError, match="lowest"):
        selectors.vip_allocate(jnp.asarray(rate), 22, lowest=1, highest=9)


def test_proportional_allocation():
    split = selectors.allocate_proportional(jnp.asarray([1.0, 2.0, 0.0]), 12, 1)
    assert split.tolist() == [4, 7, 1]


@pytest.mark.parametrize("binary", [True, False])
def test_down_sampling_keeps_the_largest_variance(binary):
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, (30, 8)) if binary else rng.random((30, 8))
    rewards = rewards.astype(np.float32)
    for count in (1, 3, 4, 8):
        keep = np.asarray(selectors.max_variance_subset(jnp.asarray(rewards), count))
        assert (keep.sum(axis=1) == count).all()
        for row, mask in zip(rewards.astype(np.float64), keep, strict=True):
            assert abs(np.var(row[mask]) - oracle.largest_variance(row, count)) < 1e-6
            if binary and count == 4 and 2 <= row.sum() <= 6:
                assert row[mask].sum() == 2
