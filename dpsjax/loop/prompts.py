"""Prompts as arrays: tokenised once, left padded, gathered by id."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.policy import left_pad
from dpsjax.tasks.base import Problem, Tokenizer
from dpsjax.types import Array, Bool, Int


class Prompts(NamedTuple):
    """Left-padded prompts.

    Attributes:
        tokens: int32[N, P].
        length: Real tokens of each, at least 1. int32[N].
    """

    tokens: Array | np.ndarray
    length: Array | np.ndarray


def tokenize(
    problems: Sequence[Problem], tokenizer: Tokenizer, size: int, rows: int | None = None
) -> Prompts:
    """Tokenise prompts, in host memory.

    Args:
        problems: at least one.
        tokenizer: the task's.
        size: P; no prompt may be longer.
        rows: pad to this many rows, which repeat the first prompt; nothing may select them.

    Returns:
        NumPy arrays.

    Raises:
        ValueError: a prompt is empty or longer than ``size``.
    """
    tokens, mask = left_pad([p.text() for p in problems], size, tokenizer=tokenizer)
    more = 0 if rows is None else rows - len(problems)
    first = np.zeros(more, np.int64)
    length = mask.sum(axis=1, dtype=np.int32)
    return Prompts(np.concatenate([tokens, tokens[first]]), np.concatenate([length, length[first]]))


def gather(
    prompts: Prompts, index: Int[Array, "B"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Tokens and mask of some prompts.

    Args:
        prompts: the pool.
        index: ids; -1 (padding) gets row 0, which is a sound input whose result is not used.

    Returns:
        ``(tokens, mask)``.
    """
    rows = jnp.maximum(index, 0)
    size = prompts.tokens.shape[1]
    start = size - prompts.length[rows]
    mask = jax.lax.broadcasted_iota(jnp.int32, (index.shape[0], size), 1) >= start[:, None]
    return prompts.tokens[rows], mask
