"""Rewards as they come: NumPy, lists, torch; bool or float; None and NaN say nothing."""

from collections.abc import Sequence

import numpy as np

from dpsjax import checks

_HINT = "give the id of every row: np.repeat(index, rollouts)"


def flat_rows(index, rewards, num_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of single rollouts, padding left out.

    Args:
        index: int[R] prompt ids, -1 is padding.
        rewards: [R], or [R, G] with a row for each id; sequences of G may differ in length.
        num_prompts: N.

    Returns:
        ``(index, rewards)``: int64[M] and float64[M], NaN where there is no verdict.

    Raises:
        TypeError: ids are no integers, or rewards no numbers.
        ValueError: an id is outside [-1, N), or the lengths differ.
    """
    ids = checks.as_array("index", on_host(index))
    if ids.size == 0 and ids.ndim == 1:
        ids = ids.astype(np.int64)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"index must hold integers, got {ids.dtype}")
    if ids.ndim != 1:
        raise ValueError(f"index must be a vector [R], got shape {ids.shape}")
    if outside := ids[(ids < -1) | (ids >= num_prompts)].tolist():
        raise ValueError(f"index must lie in [0, {num_prompts}), or be -1; got {outside}")
    values, lengths = numbers(rewards)
    if lengths.size != ids.size:
        raise ValueError(f"rewards are of {lengths.size} rows, and index has {ids.size}: {_HINT}")
    ids = np.repeat(ids.astype(np.int64), lengths)
    return ids[ids >= 0], values[ids >= 0]


def rows_of_batch(index: np.ndarray, rewards) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a whole batch, in its order: rewards [B, G], [B] or [B G].

    Raises:
        TypeError: rewards are no numbers.
        ValueError: they are of another number of prompts.
    """
    values, lengths = numbers(rewards)
    if lengths.size != index.size:
        each, rest = divmod(values.size, index.size)
        if rest or values.size != lengths.size or not each:
            sizes = f"[{index.size}, G] or [{index.size} G]"
            raise ValueError(f"rewards must be {sizes}, got {lengths.size} rows")
        lengths = np.full(index.size, each)
    return np.repeat(index.astype(np.int64), lengths), values


def numbers(rewards) -> tuple[np.ndarray, np.ndarray]:
    """Rewards one after the other as float64, and how many each row has.

    Raises:
        TypeError: they are no numbers.
        ValueError: they have more than two axes.
    """
    given = on_host(rewards)
    if isinstance(given, Sequence) and any(np.ndim(on_host(row)) for row in given):
        rows = [_floats(on_host(row)) for row in given]
        if any(row.ndim != 1 for row in rows):
            raise ValueError("rewards must be [R] or [R, G]: a number for each rollout")
        return np.concatenate(rows), np.array([row.size for row in rows], np.int64)
    array = _floats(given)
    if array.ndim not in (1, 2):
        raise ValueError(f"rewards must be [R] or [R, G], got shape {array.shape}")
    each = 1 if array.ndim == 1 else array.shape[1]
    return array.reshape(-1), np.full(array.shape[0], each, np.int64)


def on_host(value):
    """A tensor of torch as NumPy's, of any device and float type; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def _floats(value) -> np.ndarray:
    """Numbers as float64; None is NaN."""
    array = np.asarray([on_host(row) for row in value] if isinstance(value, Sequence) else value)
    if array.dtype == object:
        try:
            return array.astype(np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            pass
    if isinstance(value, str | bytes) or not (checks.is_real(array.dtype) or array.size == 0):
        raise TypeError(f"rewards={checks.shown(value)} must be numbers, or None for no verdict")
    return array.astype(np.float64)
