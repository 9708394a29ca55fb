"""Whole numbers from shares."""

import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.rollouts import quotas


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.1, 0.7, 0.2), (0.0, 3.0, 1.0)])
@pytest.mark.parametrize("total", [0, 7, 100])
def test_quotas_are_the_nearest_whole_numbers(shares, total):
    found = np.asarray(quotas(jnp.asarray(shares, jnp.float32), total))
    exact = np.array(shares) / sum(shares) * total
    assert found.sum() == total and (abs(found - exact) < 1).all()
