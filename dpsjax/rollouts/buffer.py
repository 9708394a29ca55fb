"""A buffer that turns vetoes into full batches (DAPO's dynamic sampling, arXiv 2503.14476).

Draw a batch, roll it out, push what was accepted, until B groups are in; then take B. What is left
over stays for the next step, so no accepted group is thrown away and none is used twice (the
released trainers discard the surplus and, at their cap, repeat groups). All shapes are static.

``capacity >= 2 B - 1`` always suffices: fewer than B groups are in when a batch of B is pushed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Bool, Int, PyTree


class Buffer(NamedTuple):
    """Accepted groups that wait for their batch, the oldest first."""

    groups: PyTree  # leaves [C, ...]; rows from `size` on are meaningless
    size: Int[Array, ""]
    lost: Int[Array, ""]  # accepted groups that found no room: 0 if C >= 2 B - 1


def init_buffer(group: PyTree, capacity: int) -> Buffer:
    """An empty buffer.

    Args:
        group: one group: arrays or ``ShapeDtypeStruct``s without the batch axis.
        capacity: C; 2 B - 1 for batches of B.

    Raises:
        ValueError: if ``capacity`` is not positive.
    """
    checks.require_counts(capacity=capacity)
    zero = jnp.zeros((), jnp.int32)
    groups = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), group)
    return Buffer(groups, zero, zero)


def _capacity(buffer: Buffer) -> int:
    return jax.tree.leaves(buffer.groups)[0].shape[0]


def _require_like(buffer: Buffer, groups: PyTree, batch: int) -> None:
    """Refuse groups of other parts than the buffer's, or another number of them."""
    held = jax.tree.map(lambda leaf: (batch, *leaf.shape[1:]), buffer.groups)
    try:
        given = jax.tree.map(lambda leaf, new: tuple(new.shape), buffer.groups, groups)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"groups must have the parts of the buffer's groups: {error}") from None
    if held != given:
        raise ValueError(f"groups must have shapes {held} for accept of {batch}, got {given}")


def push(buffer: Buffer, groups: PyTree, accept: Bool[Array, "B"]) -> Buffer:
    """Append the accepted groups, in their order.

    Args:
        buffer: donate it under ``jit``.
        groups: leaves [B, ...].
        accept: from :func:`dpsjax.observe`.

    Returns:
        the buffer.

    Raises:
        TypeError: if ``buffer`` is none, or ``accept`` no array of booleans.
        ValueError: if ``groups`` are not like those of the buffer, or there is not one for each of
            ``accept``; if the accepted groups do not fit. Under ``jit`` it is a ``checkify`` error;
            without ``checkify`` the last ones are dropped and counted in ``lost``.
    """
    checks.require_type(Buffer, "of init_buffer", buffer=buffer)
    checks.require_arrays(accept=(accept, "bool B"))
    _require_like(buffer, groups, accept.shape[0])
    capacity = _capacity(buffer)
    count = accept.sum(dtype=jnp.int32)
    checks.require(
        buffer.size + count <= capacity,
        f"the buffer holds {capacity} groups and {{size}} + {{count}} are too many: "
        "give it capacity 2 * batch_size - 1",
        size=buffer.size,
        count=count,
    )
    place = buffer.size + jnp.cumsum(accept, dtype=jnp.int32) - 1
    place = jnp.where(accept & (place < capacity), place, capacity)
    stored = jax.tree.map(
        lambda leaf, new: leaf.at[place].set(new.astype(leaf.dtype), mode="drop"),
        buffer.groups,
        groups,
    )
    size = jnp.minimum(buffer.size + count, capacity)
    return Buffer(stored, size, buffer.lost + buffer.size + count - size)


def take(buffer: Buffer, batch_size: int) -> tuple[PyTree, Bool[Array, "B"], Buffer]:
    """Take the B oldest groups, or all if there are fewer.

    Args:
        buffer: donate it under ``jit``.
        batch_size: B, at most the capacity.

    Returns:
        ``(groups, valid, buffer)``; rows that are not valid hold zeros.

    Raises:
        ValueError: if ``batch_size`` is not in 1..capacity.
    """
    checks.require_type(Buffer, "of init_buffer", buffer=buffer)
    capacity = _capacity(buffer)
    checks.require_counts(batch_size=batch_size)
    if not 1 <= batch_size <= capacity:
        raise ValueError(f"batch_size must lie in 1..{capacity}, got {batch_size}")
    count = jnp.minimum(buffer.size, batch_size)
    valid = jnp.arange(batch_size, dtype=jnp.int32) < count

    def head(leaf):
        shown = valid.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(shown, leaf[:batch_size], jnp.zeros((), leaf.dtype))

    order = jnp.minimum(jnp.arange(capacity, dtype=jnp.int32) + count, capacity - 1)
    rest = jax.tree.map(lambda leaf: leaf[order], buffer.groups)
    groups = jax.tree.map(head, buffer.groups)
    return groups, valid, Buffer(rest, buffer.size - count, buffer.lost)
