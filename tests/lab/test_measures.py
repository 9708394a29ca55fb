"""Calibration against loops; beliefs turned into predictions; the gap."""

import jax.numpy as jnp
import numpy as np
import pytest
from dpsjax.selectors.trackers import AverageBelief, BetaBelief, GaussianBelief, StateBelief

from dpsjax.belief import binomial
from dpsjax.lab import measures
from dpsjax.selectors import RateBelief
from tests.oracles import lab as oracle

GROUP = 5


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_calibration_against_a_loop(random):
    predicted = random.dirichlet((0.5, 0.5, 0.5), size=60).T.astype(np.float32)
    truth = random.dirichlet((1, 1, 1), size=60).T.astype(np.float32)
    predicted[:, 0] = 1 / 3  # a tie of all three
    predicted[:, 1] = [0, 1, 0]  # certain, and in the last bin
    predicted[:, 2] = [0.5, 0, 0.5]
    found = measures.calibrate(jnp.array(predicted), jnp.array(truth))
    brier, log_loss, confusion, bins = oracle.calibration(predicted, truth)
    assert found.prompts == 60
    np.testing.assert_allclose(found.brier, brier, rtol=1e-5)
    np.testing.assert_allclose(found.log_loss, log_loss, rtol=1e-4)
    np.testing.assert_allclose(found.confusion, confusion, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.bins, bins, rtol=1e-5)
    assert confusion.sum() == pytest.approx(60)


def test_the_truth_is_best_calibrated(random):
    truth = jnp.array(random.dirichlet((1, 1, 1), size=50).T, jnp.float32)
    off = jnp.roll(truth, 1, axis=1)
    perfect, worse = measures.calibrate(truth, truth), measures.calibrate(off, truth)
    assert perfect.brier < worse.brier and perfect.log_loss < worse.log_loss
    np.testing.assert_allclose(perfect.bins[1], perfect.bins[2], rtol=1e-6)


def test_states_are_merged():
    prob = jnp.array([[0.1, 0.2, 0.3, 0.25, 0.15]], jnp.float32).T
    found = measures.predicted_outcome((StateBelief(prob),), GROUP)
    np.testing.assert_allclose(found[:, 0], [0.1, 0.75, 0.15], rtol=1e-6)
    agree = jnp.array([[0.6], [0.4]], jnp.float32)
    found = measures.predicted_outcome((StateBelief(agree),), GROUP)
    np.testing.assert_allclose(found[:, 0], [0.3, 0.4, 0.3], rtol=1e-6)


def test_beta_by_integration(random):
    a, b = random.uniform(0.5, 6, (2, 10))
    found = measures.predicted_outcome((BetaBelief(jnp.array(a), jnp.array(b)),), GROUP)
    rates = random.beta(a, b, size=(200_000, 10))
    draws = np.stack([(1 - rates) ** GROUP, 0 * rates, rates**GROUP])
    draws[1] = 1 - draws[0] - draws[2]
    error = draws.std(axis=1) / np.sqrt(200_000)
    assert np.all(np.abs(np.asarray(found) - draws.mean(axis=1)) < 5 * error + 1e-6)


def test_logit_by_integration(random):
    mean, variance = np.linspace(-2, 2, 5), np.full(5, 0.8)
    belief = GaussianBelief(jnp.array(mean), jnp.array(variance))
    found = measures.outcome_of_logit((belief,), GROUP)
    rates = 1 / (1 + np.exp(-random.normal(mean, np.sqrt(variance), size=(200_000, 5))))
    draws = np.stack([(1 - rates) ** GROUP, 0 * rates, rates**GROUP])
    draws[1] = 1 - draws[0] - draws[2]
    error = draws.std(axis=1) / np.sqrt(200_000)
    assert np.all(np.abs(np.asarray(found) - draws.mean(axis=1)) < 5 * error + 1e-4)


def test_average_at_face_value():
    value = jnp.array([0.0, 0.3, 1.0], jnp.float32)
    belief = AverageBelief(value, value, jnp.zeros(3, jnp.int32))
    found = measures.outcome_of_average((belief,), GROUP)
    wanted = np.array([oracle.outcome(float(v), GROUP) for v in value]).T
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "predict",
    [measures.predicted_outcome, measures.outcome_of_average, measures.outcome_of_logit],
)
def test_no_belief(predict):
    assert predict((), GROUP) is None


def test_gap_closed():
    assert measures.gap_closed(0.5, 0.5, 0.9) == 0.0
    assert measures.gap_closed(0.9, 0.5, 0.9) == 1.0
    assert np.isnan(measures.gap_closed(0.9, 0.5, 0.5))
    np.testing.assert_allclose(
        measures.gap_closed(np.array([0.6, 0.4]), np.array([0.5, 0.5]), np.array([0.7, 0.7])),
        [0.5, -0.5],
    )


def test_outcomes_and_rates_of_a_belief_about_rates(random):
    prob = random.dirichlet(np.ones(6), size=4).T
    known = binomial.init(binomial.params(), 4, 6)
    dtype = known.posterior.dtype
    still = jnp.array([0.0, 1.0, 0.0, 0.0], dtype)
    posterior = jnp.asarray(prob, dtype)
    belief = RateBelief(known._replace(posterior=posterior, seen=known.seen | True, moves=still))
    rate = np.sin((np.arange(6) + 0.5) / 6 * np.pi / 2) ** 2
    found = measures.predicted_outcome((belief,), GROUP)
    expected = sum(p * oracle.outcome(r, GROUP)[:, None] for p, r in zip(prob, rate, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(measures.believed_rate((belief,)), rate @ prob, rtol=1e-6)
    beta = BetaBelief(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(measures.believed_rate((beta, belief)), [0.5, 0.75])
