"""DEPO: explorability and its memory, and the offline subset against exhaustive loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import contrib
from tests.selectors.play import B, N, close, propose

INDEX = jnp.arange(B, dtype=jnp.int32)


def test_explorability_and_its_memory():
    rng = np.random.default_rng(3)
    rewards = rng.integers(0, 2, (B, 6)).astype(np.float64)
    entropies = rng.random((B, 6)) * 2
    entropies[1, 2:4] = np.nan
    selector = selectors.depo(history=2, explore=0.0)
    state = selector.init(N)
    worth = []
    for step in range(3):
        shown = np.roll(rewards, step, axis=1)
        worth.append(contrib.explorability(shown, entropies))
        passes = jnp.asarray(shown.sum(axis=1), jnp.int32)
        _, state = dpsjax.observe(
            selector,
            state,
            INDEX,
            passes,
            jnp.full(B, 6, jnp.int32),
            rewards=jnp.asarray(shown),
            entropies=jnp.asarray(entropies),
        )
        close(propose(selector, state).score[:B], np.mean(worth[-2:], axis=0))
    assert np.isinf(propose(selector, state).score[B:]).all()


@pytest.mark.parametrize("shape", [(1, 6), (B, 1), (B,), (6,)])
def test_rewards_of_another_shape_are_not_broadcast(shape):
    selector = selectors.depo()
    seen = selector.init(N), INDEX, jnp.ones(B, jnp.int32), jnp.full(B, 6, jnp.int32)
    rows, entropies = jnp.ones(shape), jnp.ones((B, 6))
    with pytest.raises(ValueError, match="rewards"):
        dpsjax.observe(selector, *seen, rewards=rows, entropies=entropies)


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
    assert found == contrib.dpp_greedy(similarity, weights, 7)


def test_weighted_dpp_stops_when_no_volume_is_left():
    similarity = kernel(0, 10, 3)
    found = selectors.weighted_dpp_greedy(jnp.asarray(similarity), jnp.ones(10), 6).tolist()
    assert all(n >= 0 for n in found[:3]) and found[3:] == [-1, -1, -1]
    with pytest.raises(ValueError, match="count"):
        selectors.weighted_dpp_greedy(jnp.asarray(similarity), jnp.ones(10), 11)


def test_pagerank_is_the_stationary_law():
    similarity = abs(kernel(3, 12, 4))
    found = selectors.pagerank(jnp.asarray(similarity), 0.85, iterations=200)
    np.testing.assert_allclose(found, contrib.pagerank(similarity, 0.85), rtol=1e-10)
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
