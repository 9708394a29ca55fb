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
from dpsjax.loop.rounds import Draw, Groups
from dpsjax.types import Array, Bool


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


@functools.cache
def _used(mesh: Mesh, axes: tuple[int, ...]):
    whole = replicated(mesh)
    return jax.jit(lambda mask: mask.any(axis=axes), out_shardings=whole)


def _fitting(allowed: Sequence[int], used: int) -> int:
    return next(width for width in allowed if width >= used)


def cut_prompts(draw: Draw, count: int, mesh: Mesh) -> Draw:
    """The prompts of a step without columns in which all of them are padding.

    Args:
        draw: left-padded, P columns.
        count: of widths; 1 cuts nothing.
        mesh: the devices; all processes must call this together.

    Returns:
        the draw with one of ``widths(P, count)`` columns, at least 1.
    """
    if count == 1:
        return draw
    size = draw.prompt.shape[1]
    filled = np.asarray(_used(mesh, (0,))(draw.prompt_mask))
    width = _fitting(widths(size, count), size - int(filled.argmax()))
    prompt, mask = _last(mesh, width)(draw.prompt, draw.prompt_mask)
    return draw._replace(prompt=prompt, prompt_mask=mask)


def cut_responses(groups: Groups, count: int, mesh: Mesh) -> Groups:
    """The rollouts of a step without columns after the end of the longest response.

    Args:
        groups: with T columns.
        count: of widths; 1 cuts nothing.
        mesh: the devices; all processes must call this together.

    Returns:
        the groups with one of ``widths(T, count)`` columns.
    """
    if count == 1:
        return groups
    rollouts = groups.rollouts
    used = int(np.asarray(_used(mesh, (0, 1))(rollouts.mask)).sum())
    width = _fitting(widths(rollouts.mask.shape[2], count), max(used, 1))
    tokens, mask, log_probs = _first(mesh, width)(
        rollouts.tokens, rollouts.mask, rollouts.log_probs
    )
    return groups._replace(
        rollouts=rollouts._replace(tokens=tokens, mask=mask, log_probs=log_probs)
    )


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
