"""A few rows of a pool: what a batch may say, padding, and repeated ids.

Numbers that a user gives are judged before they are cast to int32, so that none wraps round to
another prompt's id or another count.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dpsjax import checks
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


def ids(name: str, value, total: int) -> np.ndarray | Array:
    """Prompt ids as int32[B], a NumPy array where they can be read now; -1 is padding.

    An id outside [-1, N), ``total`` being N, is an error; traced, it becomes -1.
    """
    array = _integers(name, value)
    good = _within(array, -1, total - 1)
    message = f"{name} must lie in [0, {total}), or be -1 for padding; got {{value}}"
    checks.require(good, message, value=array)
    return _as_int32(array, good)


def counts(
    name: str, value, *, length: int | None = None, of: str = "", hint: str = ""
) -> np.ndarray | Array:
    """Counts as int32[B], a NumPy array where they can be read now.

    Args:
        name: the argument's name, for the message.
        value: an array or sequence of integers; what is no count of 31 bits is an error, and where
            it is traced becomes -1.
        length: the length it must have, if any.
        of: the argument that has this length, for the message.
        hint: what to do about numbers that are no integers.
    """
    array = _integers(name, value, hint)
    if length is not None and array.shape[0] != length:
        raise ValueError(f"{name} must have length {length}{of and f' of {of}'}, got {len(array)}")
    good = _within(array, 0, 2**31 - 1)
    checks.require(good, f"{name} must be counts of at most 31 bits, got {{value}}", value=array)
    return _as_int32(array, good)


def states(name: str, value, num_states: int, index) -> np.ndarray | Array:
    """Solve states as int32[B], as long as ``index``; only rows that are no padding count.

    A state outside [0, K) is an error; traced, it becomes -1.
    """
    array = _integers(name, value)
    if array.shape[0] != index.shape[0]:
        raise ValueError(f"{name} must have length {index.shape[0]} of index, got {len(array)}")
    if checks.is_concrete(array, index):
        array = np.where(np.asarray(index) < 0, np.zeros((), array.dtype), array)
    good = _within(array, 0, num_states - 1) | (index < 0)
    checks.require(good, f"{name} must lie in [0, {num_states}), got {{value}}", value=array)
    return _as_int32(array, good)


def rollout_counts(passes, trials) -> tuple[Array, Array]:
    """Both as int32 vectors of one length, with 0 <= passes <= trials."""
    passes = jnp.asarray(counts("passes", passes))
    trials = jnp.asarray(counts("trials", trials, length=passes.shape[0], of="passes"))
    sound = (passes >= 0) & (passes <= trials)
    checks.require(sound, "passes must lie in [0, trials], got {passes}", passes=passes)
    return passes, trials


def known(name: str, value, length: int) -> np.ndarray | Array:
    """Something known of each row, as an array of numbers [length, ...]."""
    array = value if isinstance(value, jax.Array) else checks.as_array(name, value)
    if not checks.is_real(array.dtype):
        raise TypeError(f"{name}={checks.shown(value)} must be numbers")
    if array.ndim == 0 or array.shape[0] != length:
        raise ValueError(f"{name} must have shape ({length}, ...), got {array.shape}")
    return array


def _integers(name: str, value, hint: str = "") -> np.ndarray | Array:
    """A vector of integers, of its own type; NumPy's where it can be read now."""
    array = value if isinstance(value, Tracer) else checks.as_array(name, value)
    if array.size == 0 and not np.issubdtype(array.dtype, np.integer):
        array = np.zeros(array.shape, np.int32)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got {array.dtype}{hint and f': {hint}'}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector [B], got shape {array.shape}")
    return array.astype(np.int32) if array.dtype.itemsize < 4 else array


def _within(array, low: int, high: int):
    """Whether numbers of an integer array lie in a range, in the array's own type."""
    good = array <= min(high, int(np.iinfo(array.dtype).max))
    return good & (array >= low) if np.issubdtype(array.dtype, np.signedinteger) else good


def _as_int32(array, good) -> np.ndarray | Array:
    """The good ones, -1 in place of the others."""
    if isinstance(array, np.ndarray):
        return array.astype(np.int32, copy=False)  # all are good, or an error was raised
    safe = jnp.where(good, array, jnp.zeros((), array.dtype)).astype(jnp.int32)
    return jnp.where(good, safe, -1)
