"""Unequal numbers of rollouts: a step's budget of B G is split by what is believed of its prompts.

The budget is B G rows of one rollout each, so shapes are static. Each row carries the slot of its
prompt (:class:`dpsjax.loop.groups.Slots`); what is computed by prompt, advantages among it, is
computed on a [B, H] table with holes, by the same functions as for equal groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax.loop.groups import Slots
from dpsjax.selectors import BetaBelief, Proposal
from dpsjax.types import Array, Float, Int


class Allocation(NamedTuple):
    """How a budget is split.

    Attributes:
        split: ``(believed pass rates float[B], budget) -> int32[B]``, such as
            :func:`dpsjax.selectors.vip_allocate`; it sums to the budget.
        highest: H, most rollouts that it gives one prompt.
        per_prompt: Whether prompts count alike in the loss, however many rollouts they got; else
            rollouts do.
    """

    split: Callable[[Array, int], Array]
    highest: int
    per_prompt: bool


def believed(proposal: Proposal, index: Int[Array, "B"]) -> Float[Array, "B"]:
    """Pass rates that the selector's Beta belief expects; 1/2 for padding.

    Args:
        proposal: of :func:`dpsjax.loop.watched.propose_all`.
        index: prompt ids, -1 is padding.
    """
    belief = proposal.belief(BetaBelief, "the allocation of rollouts", "track_beta")
    rows = jnp.maximum(index, 0)
    a, b = belief.a[rows], belief.b[rows]
    return jnp.where(index < 0, 0.5, a / (a + b)).astype(jnp.float32)


def slots_of(
    index: Int[Array, "B"], number: Int[Array, "B"], highest: int, rows: int
) -> tuple[Slots, Int[Array, "S"]]:
    """Line up the rollouts of prompts.

    Args:
        index: prompt ids, -1 is padding, which gets no rollouts.
        number: rollouts of each prompt, at most ``highest``.
        highest: H.
        rows: S, at least the sum of the numbers.

    Returns:
        the slots, and the prompt id of each row, -1 for padding.

    >>> ids, number = jnp.array([7, -1, 3], jnp.int32), jnp.array([2, 1, 1], jnp.int32)
    >>> slots, of_row = slots_of(ids, number, 2, 4)
    >>> of_row.tolist(), slots.slot.tolist(), slots.place.tolist()
    ([7, 7, 3, -1], [0, 0, 2, 3], [0, 1, 0, 0])
    >>> slots.row.tolist()
    [[0, 1], [4, 4], [2, 4]]
    """
    number = jnp.where(index < 0, 0, number)
    ends = jnp.cumsum(number, dtype=jnp.int32)
    place = jnp.arange(highest, dtype=jnp.int32)[None]
    row = jnp.where(place < number[:, None], (ends - number)[:, None] + place, rows)
    line = jnp.arange(rows, dtype=jnp.int32)
    slot = jnp.searchsorted(ends, line, side="right").astype(jnp.int32)
    start = (ends - number).at[slot].get(mode="fill", fill_value=0)
    past = slot == index.shape[0]
    place_of_row = jnp.where(past, 0, line - start)
    of_row = index.at[slot].get(mode="fill", fill_value=-1)
    return Slots(index, row, slot, place_of_row), of_row


def row_weights(
    weight: Float[Array, "B"], slots: Slots, group: int, per_prompt: bool
) -> Float[Array, "S"]:
    """Loss weights of the rows.

    Args:
        weight: of the prompts.
        slots: of :func:`slots_of`.
        group: G, the mean number of rollouts.
        per_prompt: see :class:`Allocation`.
    """
    if per_prompt:
        number = (slots.row < slots.slot.shape[0]).sum(axis=1, dtype=jnp.int32)
        weight = weight * group / jnp.maximum(number, 1).astype(weight.dtype)
    return weight.at[slots.slot].get(mode="fill", fill_value=0)
