"""Programs of the calls of a loop, kept by selector and shapes.

JAX copies an input that a jitted function returns as it is. Here a program returns only what
changes, and the rest of the state is handed through.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from dpsjax import checks
from dpsjax.types import Array, PyTree


class _Traced(Exception):
    """The selector holds traced values: a program of its own cannot be kept."""


def compiled(name: tuple, call: Callable, state: PyTree, rest: tuple, donate: bool) -> Any:
    """``call(state, *rest)`` by a kept program; None where the selector holds traced values.

    Leaves of the state that the call returns as they came are neither copied nor donated.
    """
    leaves, treedef = jax.tree.flatten((state, rest))
    key = (name, donate, treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    try:
        return program(_Key(key, call, state, rest))(state, rest)
    except _Traced:
        return None


class _Key:
    """A hashable name of a program, with what is needed to make it."""

    def __init__(self, key: tuple, call: Callable, state: PyTree, rest: tuple) -> None:
        self.key = key
        self.making: tuple = (call, state, rest)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key


@functools.lru_cache(maxsize=256)
def program(wanted: _Key) -> Callable:
    """The kept program of a call; ``program.cache_clear()`` lets go of all of them."""
    call, state, rest = wanted.making
    wanted.making = ()  # the arrays must not live as long as the program
    donate, size = wanted.key[1], len(jax.tree.leaves(state))
    treedef = jax.tree.structure((state, rest))

    def flat(*leaves):
        state, rest = jax.tree.unflatten(treedef, leaves)
        return call(state, *rest)

    closed, shape = jax.make_jaxpr(flat, return_shape=True)(*jax.tree.leaves((state, rest)))
    if not checks.is_concrete(closed.consts):
        raise _Traced
    sources = {id(variable): place for place, variable in enumerate(closed.jaxpr.invars)}
    kept = [sources.get(id(variable)) for variable in closed.jaxpr.outvars]
    changed = sorted(set(range(size)) - set(kept)) if donate else []

    def run(given: Mapping[int, Array], others: Mapping[int, Array]):
        leaves = [given[i] if i in given else others[i] for i in range(treedef.num_leaves)]
        out = jax.tree.leaves(flat(*leaves))
        return [value for value, source in zip(out, kept, strict=True) if source is None]

    jitted = jax.jit(run, donate_argnums=0)
    out_tree = jax.tree.structure(shape)

    def by_program(state, rest):
        leaves = dict(enumerate(jax.tree.leaves((state, rest))))
        given = {i: leaves[i] for i in changed}
        made = iter(jitted(given, {i: leaf for i, leaf in leaves.items() if i not in given}))
        out = [next(made) if source is None else leaves[source] for source in kept]
        return jax.tree.unflatten(out_tree, out)

    return by_program
