"""Beliefs and scores against the loop oracles, and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.belief import beta, kalman
from dpsjax.belief.noise import row_beta
from tests.oracles import selectors as oracle
from tests.selectors.play import N, as_dict, close, follow, history, propose_with


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("forget_unseen", [False, True])
def test_beta_counts(decay, forget_unseen):
    loop = oracle.BetaLoop(N, decay, (1.5, 2.0), forget_unseen)
    selector = selectors.chain(selectors.track_beta(decay, (1.5, 2.0), forget_unseen))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    state = selector.init(N)
    for seen in history():
        state = observe(state, *seen)
        loop.step(as_dict(*seen))
        (view,) = selector.publish(state)
        close(jnp.stack([view.a, view.b], axis=1), np.stack(loop.counts))


def beta_scores(selector, decay, score):
    loop = oracle.BetaLoop(N, decay)
    follow(selector, loop.step, lambda p: close(p.score, [score(a, b) for a, b in loop.counts]))


def test_beta_mean():
    beta_scores(selectors.beta_mean(0.7, 0.4), 0.7, lambda a, b: -abs(a / (a + b) - 0.4))


def test_learnability_to_a_power():
    part = selectors.chain(selectors.track_beta(1.0), selectors.add_learnability(0.5))
    beta_scores(part, 1.0, lambda a, b: np.sqrt(a * b) / (a + b))


def test_equal_scores_are_equal_bits():
    """Prompts at p and 1 - p tie for every symmetric score, in float32."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(1 + rng.integers(0, 9, 200) * 0.7, jnp.float32)
    b = jnp.asarray(1 + rng.integers(0, 9, 200) * 0.7, jnp.float32)
    for score in (
        lambda a, b: jnp.abs(beta.offset(a, b, 0.5)),
        beta.variance_of_rollout,
        beta.expected_variance_of_rollout,
        lambda a, b: beta.informative_prob(a, b, 8),
        lambda a, b: beta.information(a, b, 8),
        lambda a, b: kalman.expected_variance_of_rollout(a - b, a + b),
    ):
        for call in (score, jax.jit(score)):
            np.testing.assert_array_equal(call(a, b), call(b, a))


def test_information_in_single_precision():
    a, b = np.meshgrid([0.5, 1, 3, 30, 300], [0.5, 1, 9, 90])
    found = beta.information(*(jnp.asarray(x.ravel(), jnp.float32) for x in (a, b)), 8)
    truth = [oracle.information(x, y, 8) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    np.testing.assert_allclose(found, truth, rtol=2e-3, atol=2e-5)


def test_denoised_advantages():
    rng = np.random.default_rng(1)
    rewards = rng.integers(0, 2, (12, 6)).astype(np.float64)
    rewards[0], rewards[1] = 0, 1
    valid = rng.random((12, 6)) < 0.8
    a = 1 + (rewards * valid).sum(axis=1) + rng.random(12)
    b = 1 + ((1 - rewards) * valid).sum(axis=1) + rng.random(12)
    found = jax.jit(beta.denoised_advantages)(*map(jnp.asarray, (rewards, valid, a, b)))
    close(found, oracle.denoised_advantages(rewards, valid, a, b))
    assert (np.asarray(found)[0][valid[0]] < 0).all() and (np.asarray(found)[1][valid[1]] > 0).all()
    poisoned = jnp.where(jnp.asarray(valid), jnp.asarray(rewards), jnp.nan)
    close(beta.denoised_advantages(poisoned, *map(jnp.asarray, (valid, a, b))), found)


def test_thompson_draws_have_the_law_of_a_beta():
    """Distance of the empirical distribution from the exact one, at about 5 sigma."""
    size = 40_000
    ids = jnp.arange(size, dtype=jnp.int32)
    draw = jax.jit(row_beta)
    grid = np.linspace(0, 1, 20_001)
    for a, b in ((1.0, 1.0), (2.5, 7.0), (0.4, 0.7), (60.0, 3.0)):
        lanes = (jnp.full(size, x, jnp.float32) for x in (a, b))
        found = np.sort(np.asarray(draw(jax.random.key(7), ids, *lanes), np.float64))
        middle = (grid[1:] + grid[:-1]) / 2
        mass = middle ** (a - 1) * (1 - middle) ** (b - 1)
        exact = np.interp(found, grid, np.concatenate([[0], np.cumsum(mass) / mass.sum()]))
        empirical = (np.arange(size) + 0.5) / size
        # P(sqrt(n) D > 2.5) is about 7e-6; the grid adds about 0.01 at the poles of (0.4, 0.7).
        slack = 0.005 if min(a, b) < 1 else 0
        assert abs(exact - empirical).max() < 2.5 / np.sqrt(size) + slack
        mean, variance = a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
        assert abs(found.mean() - mean) < 5 * np.sqrt(variance / size)
        assert ((found >= 0) & (found <= 1)).all()


def test_thompson_draws_depend_on_the_row_alone():
    rng = np.random.default_rng(0)
    ids = jnp.arange(300, dtype=jnp.int32)
    a, b = (jnp.asarray(1 + rng.random(300) * 4, jnp.float32) for _ in range(2))
    draw = jax.jit(row_beta)
    whole = draw(jax.random.key(1), ids, a, b)
    part = draw(jax.random.key(1), ids[200:], a[200:], b[200:])
    np.testing.assert_array_equal(whole[200:], part)


def test_mopps_scores():
    """Distance to the target, or to the band: 0 inside it."""
    selector = selectors.mopps(target=0.3)
    look = jax.jit(jax.vmap(lambda key: propose_with(selector, key)))
    score = np.asarray(look(jax.random.split(jax.random.key(0), 200)))
    assert score.max() <= 0 and -0.7 <= score.min() < -0.65
    near = (score > -0.1).mean()  # a uniform draw within 0.1 of 0.3
    assert abs(near - 0.2) < 5 * np.sqrt(0.2 * 0.8 / score.size)
    selector = selectors.mopps(band=(0.2, 0.9))
    look = jax.jit(jax.vmap(lambda key: propose_with(selector, key)))
    inside = (np.asarray(look(jax.random.split(jax.random.key(0), 200))) == 0).mean()
    assert abs(inside - 0.7) < 5 * np.sqrt(0.7 * 0.3 / score.size)
