"""Texts or token lists as one batch: the form in which a policy takes prompts."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dpsjax import checks
from dpsjax.types import Bool, Int

__all__ = ["Encoder", "left_pad"]


@runtime_checkable
class Encoder(Protocol):
    """What a tokenizer must offer to make prompts of texts."""

    @property
    def pad_id(self) -> int:
        """Id that fills unused positions."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


def left_pad(
    prompts: Sequence[str | Sequence[int] | np.ndarray],
    size: int | None = None,
    *,
    tokenizer: Encoder | None = None,
    pad_id: int | None = None,
) -> tuple[Int[np.ndarray, "B P"], Bool[np.ndarray, "B P"]]:
    """A batch of prompts for ``generate`` and ``token_log_probs``, in host memory.

    Args:
        prompts: B texts or lists of token ids.
        size: ``P``; no prompt may be longer. None for the longest.
        tokenizer: of the texts; a task's, or one of ``load_tokenizer``.
        pad_id: fills the front of shorter prompts; None for the tokenizer's, or 0 without one.

    Returns:
        ``(tokens, mask)``: int32 ``[B, P]`` and bool ``[B, P]``, True on real tokens.

    Raises:
        TypeError: an argument is something else, or texts come without a tokenizer.
        ValueError: a prompt is empty, longer than ``size``, or holds what is no token id.

    >>> tokens, mask = left_pad([[5, 6, 7], [8]], size=4)
    >>> tokens.tolist()
    [[0, 5, 6, 7], [0, 0, 0, 8]]
    >>> mask.sum(axis=1).tolist()
    [3, 1]
    """
    checks.require_items((str, Sequence, np.ndarray), "a text or token ids", prompts=prompts)
    checks.require_counts(**checks.given(size=size))
    checks.require_counts(least=0, **checks.given(pad_id=pad_id))
    checks.require_type(Encoder, "a tokenizer", **checks.given(tokenizer=tokenizer))
    if tokenizer is None and any(isinstance(prompt, str) for prompt in prompts):
        raise TypeError("prompts holds texts: give their tokenizer, or token ids")
    rows = [_ids(row, prompt, tokenizer) for row, prompt in enumerate(prompts)]
    length = np.array([len(row) for row in rows], np.int64)
    columns = int(length.max(initial=1)) if size is None else size
    if len(wrong := np.flatnonzero(length == 0)):
        raise ValueError(f"prompts[{wrong[0]}] is empty: give at least one token")
    if len(wrong := np.flatnonzero(length > columns)):
        raise ValueError(
            f"prompts[{wrong[0]}] has {length[wrong[0]]} tokens, more than size={columns}: "
            f"{_shown(prompts[wrong[0]])}; raise size, or leave it out"
        )
    if pad_id is None:
        pad_id = 0 if tokenizer is None else tokenizer.pad_id
    mask = np.arange(columns)[None] >= columns - length[:, None]
    tokens = np.full(mask.shape, pad_id, np.int32)
    tokens[mask] = np.concatenate([np.zeros(0, np.int32), *rows])
    return tokens, mask


def _ids(row: int, prompt: Any, tokenizer: Encoder | None) -> np.ndarray:
    """Token ids of a prompt, int32."""
    given = tokenizer.encode(prompt) if tokenizer and isinstance(prompt, str) else prompt
    ids = np.asarray(given)
    if ids.size == 0:
        return np.zeros(0, np.int32)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"prompts[{row}] must be a text or token ids, got {_shown(prompt)}")
    if ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
        raise ValueError(f"prompts[{row}] holds {ids.min()} to {ids.max()}: no token ids")
    return ids.astype(np.int32)


def _shown(prompt: Any) -> str:
    text = repr(prompt)
    return text if len(text) <= 60 else f"{text[:57]}..."
