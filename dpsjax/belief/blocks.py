"""A pass over all prompts, fast on every backend."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dpsjax.types import PyTree

BLOCK = 2**11  # prompts whose lanes, and what is made of them, fit a core's cache
AT_ONCE = 4  # blocks to a turn of the loop over them


def in_blocks(function: Callable, fixed: PyTree, lanes: PyTree, old: tuple) -> tuple:
    """``function(fixed, lanes)``, elementwise over the prompts; on a CPU a few blocks at a time.

    XLA's CPU compiler makes a loop of its own for each lane and for what they share, so over the
    whole pool every loop reads the lanes from memory again. Within a block they stay in cache,
    and the loops of several blocks are enough to keep several cores busy. Other compilers make
    one loop of it.

    Args:
        function: ``(fixed, lanes [M]) -> tuple of lanes [M]``.
        fixed: the same for all prompts.
        lanes: leaves [N].
        old: lanes [N] of the result's types, written over on a CPU.

    Returns:
        the lanes [N].
    """
    size = jax.tree.leaves(lanes)[0].shape[0]
    if size < 2 * BLOCK * AT_ONCE:
        return function(fixed, lanes)
    return jax.lax.platform_dependent(
        fixed,
        lanes,
        old,
        cpu=lambda fixed, lanes, old: _blockwise(function, fixed, lanes, old),
        default=lambda fixed, lanes, old: function(fixed, lanes),
    )


def _blockwise(function: Callable, fixed: PyTree, lanes: PyTree, old: tuple) -> tuple:
    size = old[0].shape[0]

    def part(start):
        cut = jax.tree.map(lambda lane: jax.lax.dynamic_slice(lane, (start,), (BLOCK,)), lanes)
        return function(fixed, cut)

    def turn(number, out):
        # The last blocks begin earlier: they repeat what is done already.
        starts = [jnp.minimum((number * AT_ONCE + i) * BLOCK, size - BLOCK) for i in range(AT_ONCE)]
        for start, values in [(start, part(start)) for start in starts]:
            out = tuple(
                jax.lax.dynamic_update_slice(lane, value, (start,))
                for lane, value in zip(out, values, strict=True)
            )
        return out

    return jax.lax.fori_loop(0, -(-size // (BLOCK * AT_ONCE)), turn, old)
