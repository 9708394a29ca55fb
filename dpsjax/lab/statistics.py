"""Means with intervals over seeds, and paired differences corrected for many comparisons."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from dpsjax import checks


class Interval(NamedTuple):
    """A mean over seeds and Student's 95 % confidence interval of it."""

    mean: float
    low: float
    high: float
    seeds: int


class Difference(NamedTuple):
    """A paired difference, seed by seed, against a reference."""

    mean: float
    low: float  # of the 95 % interval, not corrected
    high: float
    p_value: float  # two-sided paired t-test, not corrected
    p_corrected: float  # after Holm's correction over the family of comparisons


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean and confidence interval, by Student's t distribution.

    Args:
        values: one a seed; NaNs are left out.
        level: of the interval.

    Returns:
        the interval; its ends are NaN for fewer than two values.

    Raises:
        TypeError: ``values`` or ``level`` holds no numbers.
        ValueError: ``level`` is not above 0 and below 1.

    >>> interval([1.0, 2.0, 3.0]).mean
    2.0
    """
    values = as_floats("values", values)
    checks.require_real(level=level)
    checks.require_setting(0 < level < 1, "level", level, "above 0 and below 1")
    values = values[~np.isnan(values)]
    if values.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(values.mean())
    if values.size < 2:
        return Interval(mean, float("nan"), float("nan"), 1)
    error = values.std(ddof=1) / np.sqrt(values.size)
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1) * error)
    return Interval(mean, mean - half, mean + half, values.size)


def paired_p_value(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value that paired differences have mean 0, by the t-test.

    Args:
        differences: one a seed; NaNs are left out.

    Returns:
        1 if all are 0, 0 if all are equal and not 0, NaN for fewer than two.
    """
    values = as_floats("differences", differences)
    values = values[~np.isnan(values)]
    if values.size < 2:
        return float("nan")
    error = values.std(ddof=1) / np.sqrt(values.size)
    if error == 0:
        return 1.0 if values.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(values.mean()) / error, values.size - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: bounds the chance of any false finding among the family.

    Args:
        p_values: of all comparisons; NaNs stay NaN and do not count.

    Returns:
        corrected p-values in the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    given = as_floats("p_values", p_values, axes=1)
    corrected = np.full(given.size, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    largest = 0.0
    for rank, place in enumerate(known[np.argsort(given[known], kind="stable")]):
        largest = max(largest, min(1.0, (known.size - rank) * given[place]))
        corrected[place] = largest
    return corrected.tolist()


def against(values: dict[str, np.ndarray], reference: str) -> dict[str, Difference]:
    """Paired differences of every contender against one of them.

    Args:
        values: name -> float[seeds], the same seeds in the same order.
        reference: name of the one to compare with.

    Returns:
        name -> difference, without the reference. The family of Holm's correction is all of them.

    Raises:
        TypeError: if ``values`` is no dictionary of numbers.
        ValueError: if the reference is not among the names, or lengths differ.
    """
    checks.require_type(dict, "a dictionary of arrays", values=values)
    values = {name: as_floats("values", one, axes=1) for name, one in values.items()}
    if len({one.size for one in values.values()}) > 1:
        sizes = {name: one.size for name, one in values.items()}
        raise ValueError(f"values must be of the same seeds for all, got lengths {sizes}")
    if not isinstance(reference, str) or reference not in values:
        raise ValueError(
            f"reference={reference!r} must be one of the names of values: {', '.join(values)}"
        )
    names = [name for name in values if name != reference]
    pairs = {name: values[name] - values[reference] for name in names}
    p_values = [paired_p_value(pairs[name]) for name in names]
    out = {}
    for name, p_value, corrected in zip(names, p_values, holm(p_values), strict=True):
        mean, low, high, _ = interval(pairs[name])
        out[name] = Difference(mean, low, high, p_value, corrected)
    return out


def as_floats(name: str, value, axes: int | None = None) -> np.ndarray:
    """Numbers as float64, NaN and infinity too; with ``axes`` axes, if that matters.

    Raises:
        TypeError: they are no numbers.
        ValueError: they have other axes.
    """
    array = checks.as_array(name, value)
    if not (checks.is_real(array.dtype) or array.size == 0):
        raise TypeError(f"{name}={checks.shown(value)} must be numbers")
    if axes is not None and array.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, got shape {array.shape}: reshape it")
    return array.astype(np.float64)
