"""Everything a run needs to go on, as one pytree; and a digest to prove that two are equal."""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.policy.weights import on_host
from dpsjax.types import Array, Key, PyTree


class TrainState(NamedTuple):
    """The state of a run. The curriculum is part of it.

    Attributes:
        params: Parameters of the policy.
        opt_state: State of the optimizer.
        selector: State of the selector: what is believed about every prompt.
        key: Random key of the run; each step folds its number into it or splits it.
        step: Steps done. int32[].
        position: Position in the data: prompts handed out so far. int32[].
        visits: How often each row of the pool was rolled out. int32[N].
        rollouts: Responses generated for training so far. int32[].
        pending: Groups that wait for a later update; nothing by default.
    """

    params: PyTree
    opt_state: PyTree
    selector: PyTree
    key: Array
    step: Array
    position: Array
    visits: Array
    rollouts: Array
    pending: PyTree = ()


def initial_state(
    params: PyTree, opt_state: PyTree, selector: PyTree, key: Key, num_prompts: int
) -> TrainState:
    """The state before the first step.

    Args:
        params: Parameters of the policy.
        opt_state: ``optimizer.init(params)``.
        selector: ``selector.init(num_prompts)``.
        key: Random key of the run.
        num_prompts: N.

    Returns:
        The state, with all counters 0.
    """
    zero = jnp.zeros((), jnp.int32)
    visits = jnp.zeros(num_prompts, jnp.int32)
    return TrainState(
        params, opt_state, selector, key, zero, jnp.copy(zero), visits, jnp.copy(zero)
    )


def digest(tree: PyTree) -> str:
    """SHA-256 over the arrays of a pytree, equal where and only where all of them are.

    Arrays are taken in the order of their paths, and each enters with its path, dtype, shape and
    bytes; a random key enters with its implementation and data. Sharding does not matter. Where
    several processes hold an array together, all must call this; one array at a time is gathered.

    Args:
        tree: Pytree of arrays or numbers.

    Returns:
        64 hexadecimal digits, the same in every process.

    >>> digest({"a": np.float32(1), "b": np.int32(2)})[:16]
    '53e679d4d8d79b1d'
    >>> digest({"a": np.float32(1)}) == digest({"a": np.float64(1)})
    False
    """
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    total = hashlib.sha256()
    for path, leaf in sorted(leaves, key=lambda item: item[0]):
        kind, values = _host_array(leaf)
        # The size in the header keeps the bytes of one array from passing for the next header.
        header = f"{path}\n{kind}\n{values.dtype.name}\n{values.shape}\n{values.nbytes}\n"
        total.update(header.encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def _host_array(leaf: Any) -> tuple[str, np.ndarray]:
    """The kind of a leaf ("" for plain numbers) and its values in host memory, little-endian."""
    kind = ""
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kind, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
        values = on_host(leaf)
    else:
        values = np.asarray(leaf)
    return kind, values.astype(values.dtype.newbyteorder("<"), copy=False)
