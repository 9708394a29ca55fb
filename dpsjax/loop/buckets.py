"""Bucketed lengths: a step is padded to the smallest of a few widths that holds what is in it.

Shapes stay static: every width compiles once. What is cut off is padding, so results are the same
but for rounding.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.loop.groups import Collected, Groups
from dpsjax.types import Array, Bool, Int


def widths(size: int, count: int) -> tuple[int, ...]:
    """Equal steps up to the longest.

    Args:
        size: the longest length, tokens.
        count: how many; fewer where ``size`` is smaller.

    Returns:
        rising; the last is ``size``.

    >>> widths(1024, 4), widths(3, 4)
    ((256, 512, 768, 1024), (1, 2, 3))
    """
    return tuple(sorted({-(-size * i // count) for i in range(1, count + 1)}))


def cut_prompts(
    prompt: Int[Array, "R P"], mask: Bool[Array, "R P"], count: int, mesh: Mesh
) -> tuple[Array, Array]:
    """Prompts without the columns in which all of them are padding.

    Args:
        prompt: left-padded.
        mask: of the real tokens.
        count: of widths; 1 cuts nothing.
        mesh: the devices; all processes must call this together.

    Returns:
        both with one of ``widths(P, count)`` columns, at least 1.
    """
    if count == 1:
        return prompt, mask
    size = prompt.shape[1]
    filled = np.asarray(_used(mesh, (0,))(mask))
    width = _fitting(widths(size, count), size - int(filled.argmax()))
    return _last(mesh, width)(prompt, mask)


def cut(
    taken: Collected, rest: Groups | None, count: int, mesh: Mesh
) -> tuple[Collected, Groups | None]:
    """The groups of an update without columns in which there is nothing.

    Args:
        taken: with prompts of P columns and responses of T.
        rest: more responses to the same prompts, or None.
        count: of widths; 1 cuts nothing.
        mesh: the devices; all processes must call this together.

    Returns:
        the groups with one of ``widths(P, count)`` and one of ``widths(T, count)`` columns.
    """
    if count == 1:
        return taken, rest
    prompt, prompt_mask = cut_prompts(taken.prompt, taken.prompt_mask, count, mesh)
    parts = [taken] if rest is None else [taken, rest.rollouts]
    used = max(int(np.asarray(_used(mesh, (0, 1))(part.mask)).sum()) for part in parts)
    first = _first(mesh, _fitting(widths(taken.mask.shape[2], count), max(used, 1)))
    names = ("tokens", "mask", "log_probs")
    shorter = [
        part._replace(**dict(zip(names, first(*(getattr(part, n) for n in names)), strict=True)))
        for part in parts
    ]
    if rest is not None:
        rest = rest._replace(rollouts=shorter[1])
    return shorter[0]._replace(prompt=prompt, prompt_mask=prompt_mask), rest


@functools.cache
def _used(mesh: Mesh, axes: tuple[int, ...]):
    whole = replicated(mesh)
    return jax.jit(lambda mask: mask.any(axis=axes), out_shardings=whole)


def _fitting(allowed: Sequence[int], used: int) -> int:
    return next(width for width in allowed if width >= used)


@functools.cache
def _last(mesh: Mesh, width: int):
    """Jitted: the last columns of ``[R, P]`` arrays."""

    def run(prompt: Array, mask: Bool[Array, "R P"]) -> tuple[Array, Array]:
        return prompt[:, -width:], mask[:, -width:]

    split = batch_sharding(mesh)
    return jax.jit(run, out_shardings=(split, split))


@functools.cache
def _first(mesh: Mesh, width: int):
    """Jitted: the first columns of ``[R, G, T]`` arrays."""

    def run(*arrays: Array) -> tuple[Array, ...]:
        return tuple(jax.lax.slice_in_dim(x, 0, width, axis=2) for x in arrays)

    split = batch_sharding(mesh)
    return jax.jit(run, out_shardings=(split, split, split))
