"""The rows of the largest values, without a full sort."""

import jax
import jax.numpy as jnp

from dpsjax.types import Array, Int, Shaped

BLOCKS = (128, 32, 8)  # rows to a block, the first that leaves many blocks; 128 is a TPU's lanes


def top_rows(values: Shaped[Array, "N"], count: int) -> Int[Array, "M"]:
    """Rows of the ``count`` largest values, lowest row first among equals; exact.

    Args:
        values: float or integer, no NaN.
        count: how many; fewer come back if the pool is smaller.

    Returns:
        int32[min(count, N)], best first.
    """
    return top_rows_by(lambda rows, values: values, (values,), count)


def top_rows_by(value, lanes, count):
    """:func:`top_rows` of ``value(rows, *lanes)``, computed as it is read and never written."""
    size = lanes[0].shape[0]
    count = min(count, size)
    block = next((block for block in BLOCKS if size // block > 4 * count), None)
    if block is None:  # so few rows that a first pass would not pay
        rows = jnp.arange(size, dtype=jnp.int32)
        return jax.lax.top_k(value(rows, *lanes), count)[1].astype(jnp.int32)
    blocks = size // block
    column = jnp.arange(block, dtype=jnp.int32)[None, :]
    heads = [lane[: blocks * block].reshape(blocks, block) for lane in lanes]
    rows = jnp.arange(blocks, dtype=jnp.int32)[:, None] * block + column
    best = jnp.sort(jax.lax.top_k(value(rows, *heads).max(axis=1), count)[1]).astype(jnp.int32)
    rows = (best[:, None] * block + column).reshape(-1)
    tail = jnp.arange(blocks * block, size, dtype=jnp.int32)
    candidates = [
        value(rows, *(head[best].reshape(-1) for head in heads)),
        value(tail, *(lane[blocks * block :] for lane in lanes)),
    ]
    found = jax.lax.top_k(jnp.concatenate(candidates), count)[1]
    return jnp.concatenate([rows, tail])[found]
