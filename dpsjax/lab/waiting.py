"""Groups between their rollouts and the update: on their way, or waiting for a full batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax.rollouts import Buffer, push, take
from dpsjax.types import Array, Bool, Float, Int


class Groups(NamedTuple):
    """Rolled out groups; -1 in ``index`` is padding."""

    index: Int[Array, "B"]
    passes: Int[Array, "B"]
    trials: Int[Array, "B"]
    weight: Float[Array, "B"]
    made: Int[Array, "B"]  # updates of the student before these rollouts


class Late(NamedTuple):
    """Groups on their way, the oldest first: D steps of B."""

    groups: Groups  # [D, B]
    wait: Int[Array, "D B"]  # steps until each arrives; those that have are gone


def no_groups(*shape: int) -> Groups:
    """Padding of this shape."""
    none = jnp.zeros(shape, jnp.int32)
    return Groups(none - 1, none, none, jnp.zeros(shape, jnp.float32), none)


def deliver(late: Late, fresh: Groups, lag: Array, mixed: bool) -> tuple[Groups, Late]:
    """The groups that arrive now, and those still on their way.

    Args:
        late: on their way.
        fresh: just asked for, [B].
        lag: int32[B], at most D.
        mixed: whether lags differ: then what arrives has (D + 1) B rows, else B.
    """
    if late.wait.shape[0] == 0:
        return fresh, late
    every = jax.tree.map(
        lambda queue, new: jnp.concatenate([queue, new[None]]), late, Late(fresh, lag)
    )
    arrives = every.groups._replace(index=jnp.where(every.wait == 0, every.groups.index, -1))
    # With equal lags all that arrives is the oldest step.
    now = jax.tree.map(lambda x: x.reshape(-1) if mixed else x[0], arrives)
    return now, jax.tree.map(lambda x: x[1:], every._replace(wait=every.wait - 1))


def refill(
    pending: Buffer,
    waited: Int[Array, ""],
    arrived: Groups,
    accept: Bool[Array, "..."],
    rounds: int | None,
    size: int,
):
    """Collect accepted groups until B are there, or ``rounds`` waves are spent."""
    pending = push(pending, arrived, accept)
    ready = pending.size >= size
    if rounds is not None:
        ready |= waited + 1 >= rounds
    groups, valid, rest = take(pending, size)
    used = groups._replace(index=jnp.where(valid & ready, groups.index, -1))
    pending = jax.tree.map(lambda left, now: jnp.where(ready, left, now), rest, pending)
    return used, pending, jnp.where(ready, 0, waited + 1).astype(jnp.int32), ready
