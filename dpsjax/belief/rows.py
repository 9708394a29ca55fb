"""Addressing a few rows of a pool: padding and repeated ids."""

import jax
import jax.numpy as jnp

from dpsjax.types import Array, Bool, Int


def gather_index(index: Int[Array, "B"]) -> Int[Array, "B"]:
    """Send padding (-1) to row 0, whose value the caller then ignores."""
    return jnp.maximum(index, 0)


def scatter_index(index: Int[Array, "B"], num_rows: int) -> Int[Array, "B"]:
    """Send padding (-1) past the end, where ``mode="drop"`` drops it; -1 itself would wrap."""
    return jnp.where((index < 0) | (index >= num_rows), num_rows, index)


def merge_duplicates(
    index: Int[Array, "B"], *counts: Int[Array, "B"]
) -> tuple[Bool[Array, "B"], tuple[Int[Array, "B"], ...]]:
    """Add up what several rows of a batch say about the same prompt.

    A scatter of repeated ids has no defined order, so repeats are merged before it.

    Args:
        index: prompt ids, -1 is padding.
        *counts: what to add up.

    Returns:
        ``(first, totals)``: ``first[b]`` marks the first row of each id (never padding), and
        ``totals[.][b]`` is the sum over all rows that have the id of row ``b``. O(B log B).
    """
    size = index.shape[0]
    if size == 0:
        return jnp.zeros(0, bool), counts
    order = jnp.argsort(index, stable=True).astype(jnp.int32)
    ranked = index[order]
    starts = jnp.concatenate([jnp.ones(1, bool), ranked[1:] != ranked[:-1]])
    segment_of_rank = jnp.cumsum(starts, dtype=jnp.int32) - 1
    segment = jnp.zeros(size, jnp.int32).at[order].set(segment_of_rank)
    first = jnp.zeros(size, bool).at[order].set(starts) & (index >= 0)
    totals = tuple(jax.ops.segment_sum(value, segment, size)[segment] for value in counts)
    return first, totals
