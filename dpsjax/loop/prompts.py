"""Prompts as arrays: tokenised once, left padded, gathered by id; and the pictures they show."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.policy import Images, VisionConfig, left_pad, picture_batch
from dpsjax.policy.pictures import image_tokens, patch_budget
from dpsjax.tasks.base import Problem, Task, Tokenizer
from dpsjax.types import Array, Bool, Int, PyTree


class Sight(NamedTuple):
    """How a policy sees the pictures of a task.

    Attributes:
        vision: The policy's eye.
        patches: Room for the pictures of a prompt.
    """

    vision: VisionConfig
    patches: int

    def shapes(self) -> Images:
        """Of one prompt's pictures."""
        pixels: Any = jax.ShapeDtypeStruct((self.patches, self.vision.pixels), jnp.uint8)
        field: Any = jax.ShapeDtypeStruct((self.patches,), jnp.int32)
        return Images(pixels, field, field, field, field)


class Prompts(NamedTuple):
    """Left-padded prompts.

    Attributes:
        tokens: int32[N, P].
        length: Real tokens of each, at least 1. int32[N].
        images: What they show, ``[N, ...]``; None where there are no pictures.
    """

    tokens: Array | np.ndarray
    length: Array | np.ndarray
    images: PyTree = None


def sight_of(task: Task, vision: VisionConfig | None) -> Sight | None:
    """How a policy sees the pictures of a task; None if there are none.

    Raises:
        ValueError: there are pictures, and the policy has no eye; or what is no picture.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    pictures = [problem.images for problem in (*task.train, *task.test)]
    if not any(pictures):
        return None
    if vision is None or image_id(task.tokenizer) is None:
        raise ValueError(
            f"the task {task.name!r} shows pictures, and this policy sees none: give --model DIR, "
            "a folder of a Qwen2.5-VL"
        )
    return Sight(vision, patch_budget(pictures, vision))


def image_id(tokenizer: Tokenizer) -> int | None:
    """The token in whose places pictures stand, of a tokenizer that has one."""
    return getattr(tokenizer, "image_id", None)


def prompt_ids(problem: Problem, tokenizer: Tokenizer, vision: VisionConfig | None) -> list[int]:
    """A prompt's tokens, with one for every token of its pictures.

    Raises:
        ValueError: the text shows another number of pictures than there are.
    """
    ids = tokenizer.encode(problem.text())
    if vision is None or not problem.images:
        return ids
    found, mark = iter(problem.images), vision.image_token
    if ids.count(mark) != len(problem.images):
        raise ValueError(
            f"problem {problem.id!r}: its text shows {ids.count(mark)} pictures (<image>), and it "
            f"has {len(problem.images)}"
        )
    counts = [image_tokens(next(found), vision) if token == mark else 1 for token in ids]
    return np.repeat(ids, counts).tolist()


def longest(task: Task, vision: VisionConfig | None) -> int:
    """Tokens of the longest prompt of a task.

    Raises:
        ValueError: a text shows another number of pictures than there are.
    """
    return max(len(prompt_ids(p, task.tokenizer, vision)) for p in (*task.train, *task.test))


def seen_by(vision: VisionConfig | None, task: Task) -> tuple[Task, Sight | None]:
    """A task as a policy with this eye reads it, and how it sees the pictures, if there are any.

    Raises:
        ValueError: there are pictures, and the policy has no eye; or what is no picture.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    sight = sight_of(task, vision)
    if sight is None:
        return task, None
    return dataclasses.replace(task, prompt_tokens=longest(task, vision)), sight


def tokenize(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    size: int,
    rows: int | None = None,
    sight: Sight | None = None,
) -> Prompts:
    """Tokenise prompts, in host memory.

    Args:
        problems: at least one.
        tokenizer: the task's.
        size: P; no prompt may be longer.
        rows: pad to this many rows, which repeat the first prompt; nothing may select them.
        sight: of the pictures, if there are any.

    Returns:
        NumPy arrays.

    Raises:
        ValueError: a prompt is empty or longer than ``size``; or pictures that cannot be read.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    vision = None if sight is None else sight.vision
    ids = [prompt_ids(problem, tokenizer, vision) for problem in problems]
    tokens, mask = left_pad(ids, size, pad_id=tokenizer.pad_id)
    more = 0 if rows is None else rows - len(problems)
    order = np.concatenate([np.arange(len(problems)), np.zeros(more, np.int64)])
    images = None
    if sight is not None:
        images = picture_batch([problem.images for problem in problems], *sight)
    found = Prompts(tokens, mask.sum(axis=1, dtype=np.int32), images)
    return jax.tree.map(lambda x: x[order], found)


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


def gather_images(prompts: Prompts, index: Int[Array, "B"]) -> PyTree:
    """Pictures of some prompts, as :func:`gather`; None where there are none."""
    rows = jnp.maximum(index, 0)
    return jax.tree.map(lambda field: field[rows], prompts.images)
