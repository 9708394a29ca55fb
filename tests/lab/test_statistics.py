"""Statistics against closed forms."""

import math

import numpy as np
import pytest

from dpsjax.lab import statistics


def test_interval_closed_form():
    # n = 4, mean 2.5, s = sqrt(5/3), t(0.975, 3) = 3.182446305284263 (tables)
    found = statistics.interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446305284263 * math.sqrt(5 / 3) / 2
    assert found == pytest.approx((2.5, 2.5 - half, 2.5 + half, 4))


def test_interval_of_little():
    assert math.isnan(statistics.interval([]).mean)
    assert statistics.interval([3.0]).mean == 3.0 and math.isnan(statistics.interval([3.0]).low)
    assert statistics.interval([1.0, np.nan, 3.0]).seeds == 2


def test_p_value_closed_form():
    # with one degree of freedom t is Cauchy: p = 1 - 2 atan(t) / pi
    differences = np.array([0.1, 0.3])
    t = 0.2 / 0.1
    assert statistics.paired_p_value(differences) == pytest.approx(1 - 2 * math.atan(t) / math.pi)
    assert statistics.paired_p_value([0.0, 0.0]) == 1.0
    assert statistics.paired_p_value([0.5, 0.5]) == 0.0
    assert math.isnan(statistics.paired_p_value([0.5]))


def test_p_values_are_uniform_without_a_difference():
    random = np.random.default_rng(0)
    p = np.array([statistics.paired_p_value(random.normal(size=10)) for _ in range(2000)])
    rate, error = (p < 0.05).mean(), math.sqrt(0.05 * 0.95 / 2000)
    assert abs(rate - 0.05) < 5 * error


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = statistics.holm([0.04, float("nan"), 0.9])
    assert corrected[0] == pytest.approx(0.08) and math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.9)
    assert statistics.holm([0.7, 0.8]) == pytest.approx([1.0, 1.0])


def test_against_pairs_by_seed():
    base = np.array([0.0, 10.0, 20.0])
    found = statistics.against(
        {"dps": base, "a": base + 1.0, "b": base + np.array([0.1, -0.1, 0])}, "dps"
    )
    assert set(found) == {"a", "b"}
    assert found["a"].mean == pytest.approx(1.0) and found["a"].p_corrected < 1e-6
    assert found["b"].p_corrected > 0.9
    with pytest.raises(
        ValueError, match="reference='x' must be one of the names of values: dps, a"
    ):
        statistics.against({"dps": base, "a": base}, "x")
