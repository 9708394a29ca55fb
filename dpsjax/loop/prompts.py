"""Prompts as arrays: tokenised once, left padded, gathered by id."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    rows = len(problems) if rows is None else rows
    tokens = np.full((rows, size), tokenizer.pad_id, np.int32)
    length = np.zeros(rows, np.int32)
    for row, problem in enumerate(problems):
        ids = tokenizer.encode(problem.prompt)
        if not 0 < len(ids) <= size:
            raise ValueError(
                f"prompt {row} has {len(ids)} tokens and must have 1 to {size}: {problem.prompt!r}"
            )
        tokens[row, size - len(ids) :] = ids
        length[row] = len(ids)
    tokens[len(problems) :], length[len(problems) :] = tokens[0], length[0]
    return Prompts(tokens, length)


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
