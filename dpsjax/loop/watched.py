"""What a selector believes about every prompt, for the record of a run."""

import jax
import jax.numpy as jnp

from dpsjax import selectors
from dpsjax.selectors import BetaBelief, Proposal, Selector, StateBelief
from dpsjax.types import Array, Float, PyTree


def watched(selector: Selector, counts: bool = False) -> Selector:
    """A selector that certainly publishes a belief about solve states, for the record.

    One that does not gets DPS's tracker in front, which changes nothing about what it selects.

    Args:
        selector: a recipe or a chain.
        counts: whether it must publish a Beta belief too, as denoised advantages need; one that
            does not gets MaPP's tracker in front (decay 0.5, prior (1, 1)).

    Returns:
        the selector to train with.
    """

    def beliefs():
        return propose_all(selector, selector.init(1)).beliefs

    published = [type(belief) for belief in jax.eval_shape(beliefs)]
    trackers = [] if StateBelief in published else [selectors.track_hmm()]
    if counts and BetaBelief not in published:
        trackers.append(selectors.track_beta(0.5))
    return selectors.chain(*trackers, selector) if trackers else selector


def propose_all(selector: Selector, state: PyTree) -> Proposal:
    """A proposal for every row; its draws are not those of the step, its beliefs are."""
    rows = state.active.shape[0]
    proposal = Proposal(
        ids=jnp.arange(rows, dtype=jnp.int32),
        score=jnp.zeros(rows, jnp.float32),
        eligible=jnp.ones(rows, bool),
        weight=jnp.ones(rows, jnp.float32),
    )
    return selector.propose(jax.random.key(0), proposal, state)[0]


def predict(selector: Selector, state: PyTree) -> Float[Array, "K N"]:
    """Probability of each solve state that rollouts would show now.

    Args:
        selector: of :func:`watched`.
        state: its state.

    Returns:
        float[K, N].
    """
    return propose_all(selector, state).belief(StateBelief, "the record", "track_hmm").prob
