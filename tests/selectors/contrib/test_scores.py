"""Scores of the field against loops, and the laws of its draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.belief import kalman
from dpsjax.selectors.contrib import plr
from tests.oracles import contrib
from tests.oracles import selectors as oracle
from tests.selectors.play import N, as_dict, close, expect_law, follow, history, in_rounds, propose


def beta_scores(selector, decay, score):
    loop = oracle.BetaLoop(N, decay)
    follow(selector, loop.step, lambda p: close(p.score, [score(a, b) for a, b in loop.counts]))


def test_mapp_top():
    beta_scores(
        selectors.mapp(0.5, group=7, top=True), 0.5, lambda a, b: oracle.informative_prob(a, b, 7)
    )


def test_mapp_draws_in_proportion():
    selector = selectors.mapp(1.0)
    index = jnp.arange(5, dtype=jnp.int32)
    passes = jnp.array([0, 1, 4, 7, 8], jnp.int32)
    _, state = dpsjax.observe(selector, selector.init(5), index, passes, jnp.full(5, 8, jnp.int32))
    expect_law(selector, state, [oracle.informative_prob(1 + m, 9 - m, 8) for m in (0, 1, 4, 7, 8)])


@pytest.mark.parametrize("group", [4, 5])
def test_insight(group):
    beta_scores(
        selectors.insight(group, 0.3, 2.0),
        1.0,
        lambda a, b: contrib.insight(a, b, group, 0.3, 2.0),
    )


def test_lilo():
    beta_scores(selectors.lilo(0.3), 0.3, lambda a, b: a * b / (a + b) ** 2)


def test_kgps():
    loop = contrib.LogitLoop(N, 0.05)

    def check(proposal):
        truth = zip(loop.mean, loop.variance, strict=True)
        close(proposal.score, [contrib.expected_spread(m, v, 5) for m, v in truth])

    follow(selectors.kgps(0.05), loop.step, check)


def test_kgps_goes_by_logits_alone():
    selector = selectors.chain(selectors.track_arc(), selectors.add_expected_variance())
    with pytest.raises(ValueError, match="put track_logit before it"):
        dpsjax.select(selector, jax.random.key(0), selector.init(4), 2)


def test_quadrature_is_near_the_integral():
    grid = np.linspace(-12, 12, 4001)
    for mean, variance in ((0.0, 1.0), (1.5, 0.3), (-3.0, 2.0)):
        density = np.exp(-((grid - mean) ** 2) / (2 * variance))
        p = 1 / (1 + np.exp(-grid))
        truth = (density * p * (1 - p)).sum() / density.sum()
        found = kalman.expected_variance_of_rollout(jnp.float64(mean), jnp.float64(variance))
        assert abs(float(found) - truth) < 2e-3


def test_variance_ema():
    loop = oracle.AverageLoop(N, 0.8, 0.25)
    follow(
        selectors.variance_ema(0.8),
        lambda seen: loop.step(seen, lambda p: p * (1 - p)),
        lambda p: close(p.score, loop.value),
    )


def test_gcs():
    rates = oracle.AverageLoop(N, 0.9, 0.5, first_visit_sets=False)

    def bell():
        return [-((v - 0.5) ** 2) / (2 * 0.35**2) for v in rates.value]

    part = selectors.chain(
        selectors.track_average(selectors.pass_rate, 0.9, first_visit_sets=False),
        selectors.add_bell(0.5, 0.35),
    )
    follow(part, lambda seen: rates.step(seen, lambda p: p), lambda p: close(p.score, bell()))
    selector, seen = selectors.gcs(), next(history())
    rates = oracle.AverageLoop(N, 0.9, 0.5, first_visit_sets=False)
    rates.step(as_dict(*seen), lambda p: p)
    expect_law(selector, dpsjax.observe(selector, selector.init(N), *seen)[1], np.exp(bell()))


@pytest.mark.parametrize("inner", [None, selectors.dps])
def test_lppo_weights(inner):
    """They count the rollouts that they weigh; the batch's own weights stay 1."""
    loop = oracle.AverageLoop(N, 0.8, 0.5)
    selector = selectors.lppo(inner=None if inner is None else inner())
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    state, total = selector.init(N), 0
    for seen in history():
        feedback, state = observe(state, *seen)
        loop.step(as_dict(*seen), lambda p: p)
        expected = [1 / (1 + np.exp(-8 * loop.change[n])) + 0.5 if n >= 0 else 0 for n in seen[0]]
        close(feedback.weight, expected, 1e-6)
        total += np.ptp(expected)
    assert total > 1
    assert propose(selector, state).weight is None
    assert float(selectors.progress_weight(jnp.float32(1e9))) == 1.5


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


@pytest.mark.parametrize("by_rank", [True, False])
def test_replay_probabilities(by_rank):
    rng = np.random.default_rng(2)
    value = rng.integers(0, 5, N) / 16
    age = rng.integers(0, 9, N)
    zero = jnp.zeros(N, jnp.int32)
    beliefs = (
        selectors.Average(jnp.asarray(value), jnp.zeros(N), zero),
        selectors.Visits(zero, jnp.asarray(age, jnp.int32), jnp.zeros(N, bool)),
    )
    proposal = propose(selectors.chain(), selectors.chain().init(N)).publish(beliefs)
    part = selectors.prioritize(0.3, 0.2, by_rank=by_rank)
    found = part.propose(jax.random.key(0), proposal, ())[0].score
    close(found, contrib.replay_probabilities(value, age, 0.3, 0.2, by_rank), 1e-6)


def test_ranks_leave_out_what_may_not_be_drawn():
    value = jnp.array([0.1, 0.25, 0.2, 0.2, 0.0], jnp.float64)
    eligible = jnp.array([True, False, True, True, True])
    ranks = np.asarray(plr.score_ranks(value, eligible))
    assert ranks[[0, 2, 3, 4]].tolist() == [3, 1, 1, 4]


def test_vcrl_bank_draws_the_highest_averaged_variance():
    momentum, selector = 0.8, selectors.vcrl(0.0, bank=0.5, momentum=0.8)
    state, priority = selector.init(N), np.zeros(N)
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    for seen in history():
        state = observe(state, *seen)
        for n, (m, g) in as_dict(*seen).items():
            priority[n] = momentum * priority[n] + (1 - momentum) * m * (g - m) / g**2
    half = np.argsort(-priority)[:4]
    assert priority[half[-1]] > np.sort(priority)[-5]  # no tie at the cut
    draw = jax.jit(lambda key: dpsjax.select(selector, key, state, 8)[0].index)
    for number in range(3):
        assert set(half.tolist()) <= set(np.asarray(draw(jax.random.key(number))).tolist())


def test_vcrl_gate():
    passes = jnp.array([0, 1, 2, 3, 4, 8, 1, 0], jnp.int32)
    trials = jnp.array([8, 8, 8, 8, 8, 8, 3, 1], jnp.int32)
    selector = selectors.vcrl(0.7)
    feedback, _ = dpsjax.observe(
        selector, selector.init(9), jnp.arange(8, dtype=jnp.int32), passes, trials
    )
    # 1 * 7 / 16 and 2 * 6 / 16 = 0.75: two of eight is enough, one of eight is not.
    expected = [False, False, True, True, True, False, True, False]
    assert feedback.accept.tolist() == expected


def test_a_gate_judges_each_group_by_itself():
    """Two groups of one prompt, one all right and one all wrong: neither can teach."""
    for selector in (selectors.vcrl(0.1), selectors.dynamic_sampling(), selectors.speed()):
        seen = np.array([2, 2, 3]), np.array([0, 8, 4]), np.array([8, 8, 8])
        feedback, _ = dpsjax.observe(selector, selector.init(5), *seen)
        assert feedback.accept.tolist() == [False, False, True]


@pytest.mark.parametrize("rounds", [1, 2])
def test_adarft_target(rounds):
    """It moves once a step, by the mean over the rounds of the step."""
    difficulty = np.linspace(0, 100, N)
    selector = selectors.adarft(start=30.0)
    state, target = selector.init(N, {"difficulty": difficulty}), 30.0
    for seen in history():
        if rounds == 1:
            _, state = dpsjax.observe(selector, state, *seen)
        else:
            state = in_rounds(selector, seen)(state)
        rates = [m / g for m, g in as_dict(*seen).values()]
        if rates:
            target = np.clip(target + 50 * np.tanh(2 * (np.mean(rates) - 0.5)), 0, 100)
        close(propose(selector, state).score, -abs(difficulty - target))


@pytest.mark.parametrize("hardest_first", [False, True])
def test_static_order_goes_up_and_around(hardest_first):
    difficulty = np.random.default_rng(0).permutation(N).astype(np.float32)
    selector = selectors.static_order(hardest_first)
    state, order = selector.init(N, {"difficulty": difficulty}), []
    for step in range(6):
        batch, state = dpsjax.select(selector, jax.random.key(step), state, 4)
        order += batch.index.tolist()
        _, state = dpsjax.observe(selector, state, batch.index, np.ones(4, int), np.full(4, 2))
    expected = np.argsort(-difficulty if hardest_first else difficulty)
    np.testing.assert_array_equal(order, np.tile(expected, 2))


def test_new_prompts_bring_their_difficulty():
    """Their place is that among all prompts, not among the new ones."""
    selector = selectors.static_order()
    known = {"difficulty": np.array([10.0, 30.0, 50.0, 0.0, 0.0], np.float32)}
    state = selectors.reserve(selector, 3, 5, known)
    state = selectors.add_prompts(
        selector, state, np.array([3, 4]), {"difficulty": np.array([20.0, 5.0], np.float32)}
    )
    batch, _ = dpsjax.select(selector, jax.random.key(0), state, 5)
    assert batch.index.tolist() == [4, 0, 3, 1, 2]


@pytest.mark.parametrize(
    ("build", "column"),
    [
        (selectors.adarft, "difficulty"),
        (selectors.static_order, "difficulty"),
        (functools.partial(selectors.sec, 3), "source"),
    ],
)
def test_what_is_known_must_fit_the_pool(build, column):
    with pytest.raises(ValueError, match=f"needs '{column}' of every prompt"):
        build().init(6)
    with pytest.raises(ValueError, match=f"{column} must have shape"):
        build().init(6, {column: np.zeros(5)})
