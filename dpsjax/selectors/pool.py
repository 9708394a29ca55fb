"""Pools that grow and shrink while a selector runs, at a fixed capacity.

Shapes are static under ``jit``, so a pool is made with room for what may come: rows that hold no
prompt are inactive and never drawn.
"""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.protocol import ChainState, Selector
from dpsjax.types import ArrayLike


def reserve(selector: Selector, num_prompts: int, capacity: int) -> ChainState:
    """The state before the first step of a pool with spare rows.

    Args:
        selector: a recipe or a chain.
        num_prompts: rows 0..num_prompts-1 hold a prompt.
        capacity: rows in all.

    Returns:
        the state.

    Raises:
        TypeError: if ``selector`` is none, or a size no integer.
        ValueError: if the capacity is smaller than the number of prompts.
    """
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    checks.require_counts(num_prompts=num_prompts, capacity=capacity)
    if not 1 <= num_prompts <= capacity:
        raise ValueError(f"num_prompts={num_prompts} must lie in 1..capacity={capacity}")
    state = selector.init(capacity)
    return state._replace(active=jnp.arange(capacity, dtype=jnp.int32) < num_prompts)


def add_prompts(selector: Selector, state: ChainState, index: ArrayLike) -> ChainState:
    """Let rows hold new prompts; whatever was known of those rows is forgotten.

    A new prompt is treated as one that was never seen. What selectors know of the whole pool
    (clocks, learned targets) goes on.

    Args:
        selector: the selector that made ``state``.
        state: the current state. Its leaves whose last axis has the length of the pool are taken
            to be per prompt, as everywhere in this package.
        index: int32[M] rows, -1 is padding.

    Returns:
        the state.

    Raises:
        TypeError: if ``selector`` is none, or ``state`` no state.
        ValueError: for an id outside [-1, capacity), or the state of another selector.
    """
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    size = _size(state)
    target = _rows(index, size)
    fresh = selector.init(size)
    if jax.tree.structure(fresh) != jax.tree.structure(state):
        raise ValueError("state must come from this selector's init; it has other parts")

    def reset(leaf, new):
        if leaf.ndim == 0 or leaf.shape[-1] != size:
            return leaf
        source = jnp.minimum(target, size - 1)
        return leaf.at[..., target].set(new[..., source], mode="drop")

    return jax.tree.map(reset, state, fresh)


def remove_prompts(state: ChainState, index: ArrayLike) -> ChainState:
    """Never draw these rows again, until :func:`add_prompts` fills them.

    Args:
        state: the current state.
        index: int32[M] rows, -1 is padding.

    Returns:
        the state.

    Raises:
        TypeError: if ``state`` is no state, or ``index`` holds no integers.
        ValueError: for an id outside [-1, capacity).
    """
    target = _rows(index, _size(state))
    return state._replace(active=state.active.at[target].set(False, mode="drop"))


def _size(state: ChainState) -> int:
    checks.require_type(ChainState, "of a recipe's or a chain's init", state=state)
    return state.active.shape[0]


def _rows(index: ArrayLike, size: int):
    index = checks.integer_vector("index", index)
    checks.require(
        (index >= -1) & (index < size),
        f"index must lie in [0, {size}), or be -1 for padding; got {{index}}",
        index=index,
    )
    return rows.scatter_index(index, size)
