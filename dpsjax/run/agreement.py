"""What all processes must agree on after every step, compared in one small all-gather.

Every process computes the selection by itself. If one day two of them differ (other software, a
broken chip, a bug), they would train on different prompts and never say so.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from dpsjax.grpo.mesh import replicated
from dpsjax.loop.metrics import Record
from dpsjax.types import Array, PyTree, UInt

_COMPARED = ("the selected prompts", "the record of the step", "the belief")


class DisagreementError(RuntimeError):
    """The processes of a run do not hold the same values."""


class Agreed(NamedTuple):
    """What the processes decided together.

    Attributes:
        end: some process was asked to end.
        save: some process's clock says that a checkpoint is due.
    """

    end: bool
    save: bool


def make_agree(mesh: Mesh) -> Callable[[Record, PyTree, bool, bool], Agreed]:
    """Build the comparison.

    Args:
        mesh: the devices of the run.

    Returns:
        ``agree(record, selector_state, end, save) -> Agreed``, to be called by all processes after
        every step. It raises :class:`DisagreementError` in every process when they do not agree;
        the message names the step, what differs, and each process's value. A single process agrees
        with itself at no cost.
    """
    whole: Any = replicated(mesh)
    summed = jax.jit(checksum, out_shardings=whole)

    def agree(record: Record, selector_state: PyTree, end: bool, save: bool) -> Agreed:
        if jax.process_count() == 1:
            return Agreed(end, save)
        timeless = {name: value for name, value in record.items() if name != "seconds"}
        with jax.set_mesh(mesh):
            belief = int(np.asarray(summed(selector_state)))
        own = [_hash(record["groups"]["prompt"]), _hash(timeless), belief, int(end), int(save)]
        rows = multihost_utils.process_allgather(np.array(own, np.uint32))
        return compare(int(record["step"]), np.reshape(rows, (-1, len(own))))

    return agree


def compare(step: int, rows: np.ndarray) -> Agreed:
    """Compare what the processes have.

    Args:
        step: number of the step.
        rows: a process a row: three hashes, and whether it wants to end and to save.

    Returns:
        what any of them wants.

    Raises:
        DisagreementError: a hash differs.

    >>> compare(7, np.array([[1, 2, 3, 0, 0], [1, 2, 3, 1, 0]]))
    Agreed(end=True, save=False)
    """
    for column, what in enumerate(_COMPARED):
        hashes = [int(value) for value in rows[:, column]]
        if len(set(hashes)) > 1:
            each = ", ".join(f"process {p} has {value:08x}" for p, value in enumerate(hashes))
            raise DisagreementError(
                f"step {step}: the processes disagree on {what}: {each}. Nothing of this step is "
                "saved: the last checkpoint is from before it. Check that every host runs the same "
                "software on sound devices, then give the same command again"
            )
    return Agreed(bool(rows[:, 3].any()), bool(rows[:, 4].any()))


def _hash(value: Any) -> int:
    """32 bits of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def checksum(tree: PyTree) -> UInt[Array, ""]:
    """A sum over all bits of a pytree in which every position counts differently.

    Cheap enough for every step, and exact: integer sums have no rounding, so sharding and order do
    not matter. It finds accidents, not forgeries.

    Args:
        tree: arrays of any dtype.

    Returns:
        uint32[].
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        bits = _bits(leaf)
        place = jnp.zeros(bits.shape, jnp.uint32)
        stride = 1
        for axis in reversed(range(bits.ndim)):
            step = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            place, stride = place + step * jnp.uint32(stride % 2**32), stride * bits.shape[axis]
        odd = place * jnp.uint32(2654435769 * 2 % 2**32) + jnp.uint32(1)
        total = total * jnp.uint32(31) + jnp.sum(bits * odd, dtype=jnp.uint32)
    return total


def _bits(leaf: Array) -> Array:
    """An array as uint32, without loss; one of 8 bytes a number gets one axis more."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    if leaf.dtype.itemsize >= 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    kind = jnp.uint16 if leaf.dtype.itemsize == 2 else jnp.uint8
    return jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32)
