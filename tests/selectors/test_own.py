"""The three selectors of docs/write_your_own_selector.md do what the page says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.belief.filter import View
from tests.selectors import own
from tests.selectors.play import history

gradient, difficulty, in_flight = (
    own.NAMES[name] for name in ("add_knowledge_gradient", "track_difficulty", "in_flight")
)


def ints(*columns):
    return tuple(jnp.array(column, jnp.int32) for column in columns)


def test_each_selector_is_short():
    for block in own.BLOCKS:
        assert 0 < block.count("\n") <= 60
    for name in ("def add_knowledge_gradient", "def track_difficulty", "def in_flight"):
        (block,) = [block for block in own.BLOCKS if name in block]
        body = [line for line in block.splitlines() if line.strip()]
        code = [line for line in body if not line.startswith(("import", "from"))]
        assert len(code) <= 40, (name, len(code))


TRACKERS = {
    "hmm": selectors.track_hmm,
    "beta": selectors.track_beta,
    "grid": selectors.track_solve_rate,
    "logit": selectors.track_logit,
}


@pytest.mark.parametrize("name", TRACKERS)
def test_knowledge_gradient_over_any_filter(name):
    """The score against NumPy, on the rates that the filter draws."""
    group, samples, size, scale = 4, 6, 3, 2.0
    tracker = TRACKERS[name]()
    selector = selectors.chain(tracker)
    state = selector.init(12)
    for seen in history(steps=4):
        state = dpsjax.observe(selector, state, *seen)[1]
    (view,) = [belief for belief in selector.publish(state) if isinstance(belief, View)]
    eligible = np.arange(12) != 5
    proposal = selectors.Proposal(
        jnp.zeros(12, jnp.float32), jnp.asarray(eligible), beliefs=(view,), batch_size=size
    )
    key = jax.random.key(3)
    found = gradient(group, samples, scale).propose(key, proposal, ())[0].score
    chances = []
    for number in range(samples):
        rate = np.asarray(view.sample(jax.random.fold_in(key, number), proposal.ids), np.float64)
        chances.append([1 - r**group - (1 - r) ** group for r in rate])
    now = np.mean(chances, axis=0)
    cut = np.sort(now[eligible])[-size]
    gain = [np.mean([max(c, cut) for c in column]) for column in np.transpose(chances)]
    truth = chances[0] + scale * (np.array(gain) - np.maximum(now, cut))
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_what_is_not_known_is_worth_finding_out():
    """Of two prompts of the same mean, the uncertain one; and a hopeless one is not."""
    selector = selectors.chain(selectors.track_beta(), gradient(8, 32, scale=100.0))
    passes, trials = [2, 200, 0] + [100] * 5, [20, 2000, 2000] + [2000] * 5
    state = dpsjax.observe(selector, selector.init(8), *ints(range(8), passes, trials))[1]
    draws = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, 1)[0].index[0]))
    share = np.bincount(draws(jax.random.split(jax.random.key(0), 200)), minlength=8) / 200
    assert share[0] > 0.8 and share[2] == 0


def ridge(features, passes, trials, prior):
    """Weights and covariance of Bayesian regression on empirical logits, in NumPy."""
    logit = np.log(passes + 0.5) - np.log(trials - passes + 0.5)
    noise = 1 / (passes + 0.5) + 1 / (trials - passes + 0.5)
    precision = prior * np.eye(features.shape[1]) + (features.T / noise) @ features
    return np.linalg.solve(precision, (features.T / noise) @ logit), np.linalg.inv(precision)


def test_difficulty_is_regression_on_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4))
    selector = selectors.chain(difficulty(prior=2.0, decay=1.0), selectors.add_mixed_prob(4))
    state = selector.init(30, {"features": features})
    index, trials = rng.choice(30, (3, 6), replace=False), rng.integers(1, 9, (3, 6))
    passes = rng.integers(0, trials + 1)
    for seen in zip(index, passes, trials, strict=True):
        state = dpsjax.observe(selector, state, *seen)[1]
    weights, covariance = ridge(features[index.ravel()], passes.ravel(), trials.ravel(), 2.0)
    (view,) = [belief for belief in selector.publish(state) if isinstance(belief, View)]
    np.testing.assert_allclose(view.mean, features @ weights, rtol=1e-10)
    variance = np.einsum("nf,fg,ng->n", features, covariance, features)
    np.testing.assert_allclose(view.variance, variance, rtol=1e-10)


def test_new_prompts_are_known_by_their_features():
    """Easy and hard prompts learned of by features; one that joins is judged before any rollout."""
    features = np.stack([np.ones(20), np.repeat([-1.0, 1.0], 10)], axis=1)
    selector = selectors.chain(difficulty(), selectors.add_mixed_prob(4))
    state = selectors.reserve(selector, 18, 20, {"features": features})
    for _ in range(5):
        seen = ints([0, 1, 11, 12], [0, 1, 8, 7], [8] * 4)
        state = dpsjax.observe(selector, state, *seen)[1]
    easy = {"features": np.array([[1.0, 1.0], [1.0, -1.0]])}
    state = selectors.add_prompts(selector, state, ints([18, 19])[0], easy)
    rate = dpsjax.inspect(selector, state).rate
    assert rate[18] > 0.8 and rate[19] < 0.2
    np.testing.assert_allclose([rate[18], rate[19]], [rate[15], rate[5]], rtol=1e-12)
    assert state.active.all()


def test_prompts_in_flight_are_not_drawn_until_their_groups_are_in_or_given_up():
    selector = selectors.chain(in_flight(patience=3))
    state, batches = selector.init(12), []
    for step in range(3):
        batch, state = dpsjax.select(selector, jax.random.key(step), state, 4)
        batches.append(set(batch.index.tolist()))
        state = dpsjax.advance(selector, state)
    assert set.union(*batches) == set(range(12))  # twelve different prompts on their way
    batch, _ = dpsjax.select(selector, jax.random.key(3), state, 4)
    assert set(batch.index.tolist()) == batches[0]  # given up after three steps
    back = sorted(batches[2])[:2]
    seen = ints(back, [1, 1], [2, 2])
    _, state = dpsjax.observe(selector, state, *seen, advance=False)
    batch, _ = dpsjax.select(selector, jax.random.key(4), state, 12)
    assert set(batch.index.tolist()) - {-1} == batches[0] | set(back)


def test_stale_groups_count_less():
    selector = selectors.chain(in_flight(pace=0.5, freshness=0.8))
    age = np.array([0, 1, 3, 0])
    feedback, state = dpsjax.observe(
        selector, selector.init(5), *ints([0, 1, 2, -1], [4, 4, 4, 0], [4] * 4), age=age
    )
    np.testing.assert_allclose(feedback.weight, [1, 0.8, 0.8**3, 0], rtol=1e-6)
    rate = dpsjax.inspect(selector, state).rate
    truth = [0.5 + 0.5 * 0.8**steps * 0.5 for steps in (0, 1, 3)]
    np.testing.assert_allclose(rate, [*truth, 0.5, 0.5], rtol=1e-12)
