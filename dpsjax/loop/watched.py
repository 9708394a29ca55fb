"""Beliefs for the record: a selector that keeps none gets a tracker in front."""

from collections.abc import Mapping

import jax
import numpy as np

from dpsjax import selectors
from dpsjax.selectors import BetaView, Selector
from dpsjax.types import Array


def watched(
    selector: Selector, data: Mapping[str, Array | np.ndarray] | None = None, counts: bool = False
) -> Selector:
    """A selector that certainly believes something of every prompt.

    One that does not gets DPS's tracker in front, which changes nothing about what it selects.

    Args:
        selector: a recipe or a chain.
        data: as for its ``init``; only shapes matter.
        counts: whether it must publish a Beta belief too, as denoised advantages need; one that
            does not gets MaPP's tracker in front (decay 0.5, prior (1, 1)).

    Returns:
        the selector to train with.
    """
    one = {name: values[:1] for name, values in (data or {}).items()}
    state = jax.eval_shape(lambda: selector.init(1, one))
    published: list[type] = []
    jax.eval_shape(lambda state: published.extend(map(type, selector.publish(state))), state)
    trackers = [] if selectors.has_belief(selector, state) else [selectors.track_hmm()]
    if counts and BetaView not in published:
        trackers.insert(0, selectors.track_beta(0.5))
    return selectors.chain(*trackers, selector) if trackers else selector
