"""Beliefs and scores against the loop oracles, and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dpsjax.selectors.sampling import row_beta

import dpsjax
from dpsjax import selectors
from dpsjax.belief import beta, ema, gaussian
from dpsjax.selectors import paced
from tests.oracles import selectors as oracle
from tests.selectors.play import N, as_dict, close, follow, history, propose, propose_with


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("forget_unseen", [False, True])
def test_beta_counts(decay, forget_unseen):
    loop = oracle.BetaLoop(N, decay, (1.5, 2.0), forget_unseen)
    selector = selectors.chain(selectors.track_beta(decay, (1.5, 2.0), forget_unseen))

    def check(proposal):
        close(jnp.stack(proposal.beliefs[0], axis=1), np.stack(loop.counts))

    follow(selector, loop.step, check)


def beta_scores(selector, decay, score):
    loop = oracle.BetaLoop(N, decay)
    follow(selector, loop.step, lambda p: close(p.score, [score(a, b) for a, b in loop.counts]))


def test_beta_mean():
    beta_scores(selectors.beta_mean(0.7, 0.4), 0.7, lambda a, b: -abs(a / (a + b) - 0.4))


def test_mapp_top():
    beta_scores(
        selectors.mapp(0.5, group=7, top=True), 0.5, lambda a, b: oracle.informative_prob(a, b, 7)
    )


@pytest.mark.parametrize("group", [4, 5])
def test_insight(group):
    beta_scores(
        selectors.insight(group, 0.3, 2.0),
        1.0,
        lambda a, b: oracle.insight(a, b, group, 0.3, 2.0),
    )


def test_lilo_and_the_score_of_cures():
    beta_scores(selectors.lilo(0.3), 0.3, lambda a, b: a * b / (a + b) ** 2)
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
        lambda a, b: gaussian.expected_variance_of_rollout(a - b, a + b),
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


def test_variance_ema_and_gcs():
    loop = oracle.AverageLoop(N, 0.8, 0.25)
    follow(
        selectors.variance_ema(0.8),
        lambda seen: loop.step(seen, lambda p: p * (1 - p)),
        lambda p: close(p.score, loop.value),
    )
    rates = oracle.AverageLoop(N, 0.9, 0.5, first_visit_sets=False)
    part = selectors.chain(
        selectors.track_average(selectors.pass_rate, 0.9, first_visit_sets=False),
        selectors.add_bell(0.5, 0.35),
    )
    follow(
        part,
        lambda seen: rates.step(seen, lambda p: p),
        lambda p: close(p.score, [-((v - 0.5) ** 2) / (2 * 0.35**2) for v in rates.value]),
    )


def test_lppo_weights():
    loop = oracle.AverageLoop(N, 0.8, 0.5)
    follow(
        selectors.lppo(),
        lambda seen: loop.step(seen, lambda p: p),
        lambda p: close(p.weight, [1 / (1 + np.exp(-8 * c)) + 0.5 for c in loop.change], 1e-6),
    )
    assert float(ema.progress_weight(jnp.float32(1e9))) == 1.5


def test_lppo_weights_in_the_published_order():
    """They count the rollouts that they weigh; the batch's own weights stay 1."""
    loop, selector = oracle.AverageLoop(N, 0.8, 0.5), selectors.lppo(late=True)
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    late = jax.jit(lambda state, index: selectors.late_weights(selector, state, index))
    state, total = selector.init(N), 0
    for seen in history():
        state = observe(state, *seen)
        loop.step(as_dict(*seen), lambda p: p)
        index = seen[0]
        expected = [1 / (1 + np.exp(-8 * loop.change[n])) + 0.5 if n >= 0 else 1 for n in index]
        close(late(state, index), expected, 1e-6)
        total += np.ptp(expected)
    assert total > 1
    assert (propose(selector, state).weight == 1).all()
    plain = selectors.dps()
    assert selectors.late_weights(plain, plain.init(3), jnp.array([1, -1])).tolist() == [1, 1]


def test_learning_progress():
    loop = oracle.AverageLoop(N, 0.8, 0.5)
    follow(
        selectors.learning_progress(explore=0.0),
        lambda seen: loop.step(seen, lambda p: p),
        lambda p: close(
            p.score,
            [1 if v < 2 else abs(c) for v, c in zip(loop.visits, loop.change, strict=True)],
        ),
    )


def test_kgps():
    loop = oracle.LogitLoop(N, 0.05)

    def check(proposal):
        truth = zip(loop.mean, loop.variance, strict=True)
        close(proposal.score, [oracle.expected_spread(m, v, 5) for m, v in truth])

    follow(selectors.kgps(0.05), loop.step, check)


def test_quadrature_is_near_the_integral():
    grid = np.linspace(-12, 12, 4001)
    for mean, variance in ((0.0, 1.0), (1.5, 0.3), (-3.0, 2.0)):
        density = np.exp(-((grid - mean) ** 2) / (2 * variance))
        p = 1 / (1 + np.exp(-grid))
        truth = (density * p * (1 - p)).sum() / density.sum()
        found = gaussian.expected_variance_of_rollout(jnp.float64(mean), jnp.float64(variance))
        assert abs(float(found) - truth) < 2e-3


@pytest.mark.parametrize("refit", [8, 100, None])
def test_arcus(refit):
    """Prompts 10 and 11 are never seen; they get the moments of the others."""
    loop = oracle.ArcLoop(N, 0.1, refit=refit or np.inf)
    part = selectors.chain(selectors.track_arc(refit=refit), selectors.add_arc_nearness(0.6, 6))

    def check(proposal):
        truth = zip(loop.mean, loop.variance, strict=True)
        close(proposal.score, [oracle.arc_log_score(m, v, 0.6, 6) for m, v in truth], 1e-8)

    follow(part, loop.step, check)


def test_arcus_moves_its_target_after_the_warm_up():
    group, batch, warm_up = 6, 4, 2
    part = selectors.add_paced_arc_nearness(group=group, warm_up=warm_up)
    selector = selectors.chain(selectors.track_arc(), part)
    choose = jax.jit(lambda key, state: dpsjax.select(selector, key, state, batch)[1])
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    loop, state, expected = oracle.ArcLoop(N, 0.1), selector.init(N), np.pi / 4
    for number, seen in enumerate(history()):
        state = choose(jax.random.key(number), state)
        if number >= warm_up:
            expected = oracle.arc_paced_target(expected, loop.mean, loop.variance, group)
        close(state.parts[1].target, expected, 1e-8)
        state = observe(state, *seen)
        loop.step(as_dict(*seen))
    assert abs(expected - np.pi / 4) > 0.01


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


def test_paced_log_score_is_finite_everywhere():
    mean = jnp.linspace(0, np.pi / 2, 50)
    for variance in (0.0, 1e-6, 0.2, 10.0):
        score = paced.arc_log_score(mean, jnp.full(50, variance), 0.3, 8)
        assert np.isfinite(score).all()
