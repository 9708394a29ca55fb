"""GCS (arXiv 2605.11403): a Gaussian weight on the averaged pass rate."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.chance import draw_softmax
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import Average, pass_rate, track_average
from dpsjax.selectors.score import from_view

# Defaults of the recipe and of its parts.
TARGET = 0.5
WIDTH = 0.35


def add_bell(target=TARGET, width=WIDTH) -> Selector:
    """``-(average - target)^2 / (2 width^2)``, the logarithm of GCS's Gaussian weight.

    Args:
        target: centre of the bell.
        width: its standard deviation.

    Returns:
        a part that needs :func:`track_average` before it.

    Raises:
        TypeError: a setting is no number.
        ValueError: the width is not positive.
    """
    checks.require_scalar(-jnp.inf, jnp.inf, target=target)
    checks.require_positive(width=width)

    def score(average: Average, key, ids):
        dtype = average.value.dtype
        ratio = (average.value - jnp.asarray(target, dtype)) / jnp.asarray(width, dtype)
        return -0.5 * ratio * ratio

    return from_view(score, Average, "add_bell", "track_average")


def gcs(decay=0.9, width=WIDTH, target=TARGET) -> Selector:
    """A Gaussian weight on the averaged pass rate (GCS, arXiv 2605.11403), drawn in proportion.

    Args:
        decay: of the average; 0.9 in the paper.
        width: 0.35 in the paper.
        target: 0.5 in the paper.

    Returns:
        the selector.
    """
    checks.require_scalar(0.0, 1.0, target=target)  # a pass rate
    return chain(
        track_average(pass_rate, decay, first_visit_sets=False),
        add_bell(target, width),
        draw_softmax(1.0),
    )


ENTRIES = (Entry(gcs, "2605.11403"),)
