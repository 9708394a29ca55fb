"""Calibration against loops; the gap."""

import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.lab import measures
from tests.oracles import lab as oracle


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


def test_gap_closed():
    assert measures.gap_closed(0.5, 0.5, 0.9) == 0.0
    assert measures.gap_closed(0.9, 0.5, 0.9) == 1.0
    assert np.isnan(measures.gap_closed(0.9, 0.5, 0.5))
    np.testing.assert_allclose(
        measures.gap_closed(np.array([0.6, 0.4]), np.array([0.5, 0.5]), np.array([0.7, 0.7])),
        [0.5, -0.5],
    )
