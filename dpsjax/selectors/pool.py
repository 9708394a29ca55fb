"""The pool: which leaves of a state are per prompt, and pools that grow and shrink.

Shapes are static under ``jit``, so a pool is made with room for what may come: rows that hold no
prompt are inactive and never drawn.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.base import ChainState, Data, Selector
from dpsjax.types import Array, PyTree, Rows

SHARED = -1  # in place of an axis: a leaf of the whole pool


def column(
    data: Data, name: str, num_prompts: int, dtype, wanted_by: str, below: int | None = None
) -> Array:
    """What is known of every prompt beforehand, as an array [N, ...].

    Args:
        data: of ``selector.init(num_prompts, data)``.
        name: of the column.
        num_prompts: N.
        dtype: of the result.
        wanted_by: the part that needs it, for the message.
        below: for categories, how many there are.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it is missing, there is not one for each prompt, or a category is none.
    """
    if data is None or name not in data:
        raise ValueError(
            f"{wanted_by} needs {name!r} of every prompt: "
            f"selector.init(num_prompts, data={{{name!r}: array of [N]}})"
        )
    values = data[name]
    checks.require_finite(**{name: values})
    if np.ndim(values) == 0 or np.shape(values)[0] != num_prompts:
        raise ValueError(f"{name} must have shape ({num_prompts},), got {np.shape(values)}")
    values = jnp.asarray(values)
    if below is not None:
        good = (values >= 0) & (values < below)
        checks.require(good, f"{name} must lie in [0, {below}), got {{values}}", values=values)
    return jnp.array(values, dtype)  # a copy: a donated state must not take the caller's array


def prompt_axes(selector: Selector, data: Data = None) -> PyTree:
    """The prompt axis of every leaf of a selector's state; -1 for leaves of the whole pool.

    Found from the shapes of two pools of different sizes, so nothing is guessed. Use it to shard
    a state, or to pick the rows of some prompts.

    Args:
        selector: a recipe or a chain.
        data: as given to ``init``; only shapes and dtypes matter.

    Returns:
        a pytree like the state, of ints.

    >>> import dpsjax
    >>> prompt_axes(dpsjax.selectors.uniform_epochs()).parts[0].step
    -1
    """

    def shapes(size):
        probe = None
        if data is not None:
            probe = {
                name: jax.ShapeDtypeStruct((size, *np.shape(values)[1:]), jnp.result_type(values))
                for name, values in data.items()
            }
        return jax.eval_shape(lambda probe: selector.init(size, probe), probe)

    def axis(two, three):
        unequal = (
            i
            for i, sizes in enumerate(zip(two.shape, three.shape, strict=True))
            if sizes[0] != sizes[1]
        )
        return next(unequal, SHARED)

    return jax.tree.map(axis, shapes(2), shapes(3))


@functools.lru_cache(maxsize=256)
def _expected(selector: Selector):
    """Structure of a state, and the prompt axis and shape of each leaf; None if it needs data."""
    try:
        axes = prompt_axes(selector)
        shapes = jax.eval_shape(lambda: selector.init(1, None))
    except ValueError:
        return None
    of_leaves = zip(jax.tree.leaves(axes), jax.tree.leaves(shapes), strict=True)
    return jax.tree.structure(axes), [(axis, leaf.shape) for axis, leaf in of_leaves]


_OTHER = (
    "state is of another selector: make it by this selector's init, or give the selector that "
    "made it"
)


def checked(selector: Selector, state: PyTree) -> ChainState:
    """The state, with arrays for leaves; refuses what is no state of this selector.

    Raises:
        TypeError: it is no state, or ``selector`` none.
        ValueError: it is that of another selector, or its parts are of pools of different sizes.
    """
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    if not isinstance(state, ChainState):
        hint = "wrap the part in dpsjax.chain(...)"
        if isinstance(state, dict | list):
            hint = "restore a checkpoint into selector.init(num_prompts), its target"
        raise TypeError(
            f"state must come from a recipe's or a chain's init, got {type(state).__name__}: {hint}"
        )
    if not checks.is_concrete(state):
        return state
    expected = _expected(selector)
    leaves, structure = jax.tree.flatten(state)
    if expected is not None:
        if structure != expected[0]:
            raise ValueError(_OTHER)
        size = state.active.shape[0]
        for leaf, (axis, shape) in zip(leaves, expected[1], strict=True):
            found = np.shape(leaf)
            if axis != SHARED and found[axis] != size:
                raise ValueError(f"state holds parts of pools of {size} and {found[axis]}")
            if found != tuple(size if i == axis else n for i, n in enumerate(shape)):
                raise ValueError(_OTHER)
    if all(isinstance(leaf, jax.Array) for leaf in leaves):
        return state
    return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])


def require_active(state: ChainState, index: np.ndarray | Array) -> None:
    """Refuse ids of rows that hold no prompt."""
    if isinstance(index, np.ndarray) and checks.is_concrete(state.active):
        near = all(device.platform == "cpu" for device in state.active.devices())
        active = np.asarray(state.active)[index] if near else np.asarray(state.active[index])
        empty = (index >= 0) & ~active
        if empty.any():
            ids = index[empty].tolist()
            raise ValueError(f"index names rows that hold no prompt: {ids}; see add_prompts")


def reserve(selector: Selector, num_prompts: int, capacity: int, data: Data = None) -> ChainState:
    """The state before the first step of a pool with spare rows.

    Args:
        selector: a recipe or a chain.
        num_prompts: rows 0..num_prompts-1 hold a prompt.
        capacity: rows in all.
        data: arrays [capacity, ...] by name; what spare rows hold does not matter.

    Returns:
        the state.

    Raises:
        TypeError: ``selector`` is none, or a size no integer.
        ValueError: the capacity is smaller than the number of prompts.
    """
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    checks.require_counts(num_prompts=num_prompts, capacity=capacity)
    if num_prompts > capacity:
        raise ValueError(f"num_prompts={num_prompts} must lie in 1..capacity={capacity}")
    state = selector.init(capacity, data)
    return state._replace(active=jnp.arange(capacity, dtype=jnp.int32) < num_prompts)


def add_prompts(selector: Selector, state: PyTree, index: Rows, data: Data = None) -> ChainState:
    """Let rows hold new prompts; whatever was known of those rows is forgotten.

    A new prompt is treated as one that was never seen. What selectors know of the whole pool
    (clocks, learned targets) goes on.

    Args:
        selector: the selector that made ``state``.
        state: the current state.
        index: int[M] rows, -1 is padding.
        data: arrays [M, ...] by name: what is known of the new prompts, as in ``init``.

    Returns:
        the state.

    Raises:
        TypeError: ``selector`` is none, or ``state`` no state.
        ValueError: an id is outside [-1, capacity), or the state is another selector's.
    """
    state = checked(selector, state)
    size = state.active.shape[0]
    index = jnp.asarray(rows.ids("index", index, size))
    if index.shape[0] == 0:
        return state
    target = rows.scatter_index(index, size)
    fresh = selector.init(index.shape[0], data)

    def write(axis, leaf, new):
        if axis == SHARED:
            return leaf
        where = (slice(None),) * axis + (target,)
        return leaf.at[where].set(new, mode="drop")

    return jax.tree.map(write, prompt_axes(selector, data), state, fresh)


def remove_prompts(state: PyTree, index: Rows) -> ChainState:
    """Never draw these rows again, until :func:`add_prompts` fills them.

    Args:
        state: the current state.
        index: int[M] rows, -1 is padding.

    Returns:
        the state.

    Raises:
        TypeError: ``state`` is no state, or ``index`` holds no integers.
        ValueError: an id is outside [-1, capacity).
    """
    checks.require_type(ChainState, "of a recipe's or a chain's init", state=state)
    size = state.active.shape[0]
    target = rows.scatter_index(jnp.asarray(rows.ids("index", index, size)), size)
    return state._replace(active=jnp.asarray(state.active).at[target].set(False, mode="drop"))
