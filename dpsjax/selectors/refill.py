"""Steps of several rounds inside ``jit``: draw and roll out until enough groups are accepted.

For simulators, and rollouts that are JAX code (DAPO's dynamic sampling, arXiv 2503.14476).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.rollouts.buffer import Buffer, push, take
from dpsjax.selectors.api import advance, observe, select
from dpsjax.selectors.base import Batch, ChainState, Selector
from dpsjax.types import Array, Bool, Int, Key, PyTree

# (key, batch) -> (passes int32[B], trials int32[B], groups: leaves [B, ...])
RollOut = Callable[[Key, Batch], tuple[Array, Array, Any]]


def fill(
    selector: Selector,
    key: Key,
    state: ChainState,
    buffer: Buffer,
    batch_size: int,
    roll_out: RollOut,
    max_rounds: int | None = None,
) -> tuple[PyTree, Bool[Array, "B"], Int[Array, ""], ChainState, Buffer]:
    """Draw, roll out and push until the buffer holds a batch; then take it.

    For loops that run inside ``jit``: simulators, or rollouts that are JAX code.

    Args:
        selector: with a part that vetoes; without one a single round fills the batch.
        key: a JAX random key.
        state: of the selector.
        buffer: capacity at least 2 B - 1.
        batch_size: B.
        roll_out: pure function of a key and a batch.
        max_rounds: give up after so many rounds and return what there is ("capped"; the released
            scripts use 4 and 10). If not given, go on until the batch is full ("true fill"),
            which may be for ever if no prompt is ever accepted.

    Returns:
        ``(groups, valid, rounds, state, buffer)``.

    Raises:
        TypeError: ``batch_size`` or ``max_rounds`` is no integer.
        ValueError: one of them is below 1.
    """
    checks.require_counts(batch_size=batch_size, **checks.given(max_rounds=max_rounds))

    def unfinished(carry):
        rounds, _, held = carry
        short = held.size < batch_size
        return short if max_rounds is None else short & (rounds < max_rounds)

    def one_round(carry):
        rounds, inner, held = carry
        select_key, roll_key = jax.random.split(jax.random.fold_in(key, rounds))
        batch, inner = select(selector, select_key, inner, batch_size)
        passes, trials, groups = roll_out(roll_key, batch)
        feedback, inner = observe(selector, inner, batch.index, passes, trials, advance=False)
        return rounds + 1, inner, push(held, groups, feedback.accept)

    start = (jnp.zeros((), jnp.int32), state, buffer)
    rounds, state, buffer = jax.lax.while_loop(unfinished, one_round, start)
    groups, valid, buffer = take(buffer, batch_size)
    return groups, valid, rounds, advance(selector, state), buffer
