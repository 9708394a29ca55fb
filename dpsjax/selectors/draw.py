"""From scores to a batch: the B best rows, equals drawn at random, on one device or many.

The order is total, so the result does not depend on how the pool is sharded: higher score first,
then a hash of (key, id), then the lower id. No full sort is needed. The B best rows lie in the B
blocks with the largest maxima, so one pass over the pool for block maxima and a second over B
blocks finds the cut; a second such pass, over the hash of the rows that equal the cut, chooses
among equals.
"""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.noise import hash_bits, hash_words
from dpsjax.selectors.protocol import Batch, Proposal
from dpsjax.types import Array, Int, Key, Shaped

BLOCKS = (128, 32, 8)  # rows to a block, the first that leaves many blocks; 128 is a TPU's lanes


def top_rows(values: Shaped[Array, "N"], count: int) -> Int[Array, "M"]:
    """Rows of the ``count`` largest values, lowest row first among equals; exact.

    Args:
        values: float or integer, no NaN.
        count: how many; fewer come back if the pool is smaller.

    Returns:
        int32[min(count, N)], best first.
    """
    return _top_rows(lambda rows, values: values, (values,), count)


def _top_rows(value, lanes, count):
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


def _rank(rows, score, eligible):
    """What decides: the score, NaN as its lowest finite value; minus infinity if not eligible."""
    del rows
    lowest = jnp.asarray(jnp.finfo(score.dtype).min, score.dtype)
    return jnp.where(eligible, jnp.where(score > lowest, score, lowest), -jnp.inf)


def _best_rows(score, eligible, first_id, words, count):
    """Rows of the ``count`` best by (rank, hash): exact, equals chosen by the hash."""
    count = min(count, score.shape[0])
    best = _top_rows(_rank, (score, eligible), count + 1)
    rank = _rank(best, score[best], eligible[best])
    if best.shape[0] == count:  # the whole pool
        return best
    cut = rank[count - 1]

    def order(rows, score, eligible):
        # Above the cut all are in, whatever their order; at the cut the hash decides. As 24-bit
        # floats, because a maximum of floats is what every backend does fastest.
        rank = _rank(rows, score, eligible)
        hashes = (hash_bits(words, first_id + rows) >> 8).astype(jnp.float32)
        at_cut = jnp.where(rank == cut, hashes, jnp.float32(-1))
        return jnp.where(rank > cut, jnp.float32(2**25), at_cut)

    def by_hash():
        return _top_rows(order, (score, eligible), count)

    return jax.lax.cond(rank[count] < cut, lambda: best[:count], by_hash)


def _gather(values, axis_name):
    """One small all-gather of the shards' candidates, packed into one array of words."""
    words = [jax.lax.bitcast_convert_type(value, jnp.uint32) for value in values]
    words = [word.reshape(word.shape[0], -1) for word in words]
    packed = jnp.concatenate(words, axis=1)
    packed = jax.lax.all_gather(packed, axis_name, tiled=True)
    out, start = [], 0
    for value, word in zip(values, words, strict=True):
        columns = packed[:, start : start + word.shape[1]]
        start += word.shape[1]
        columns = columns[:, 0] if value.dtype.itemsize == 4 else columns
        out.append(jax.lax.bitcast_convert_type(columns, value.dtype))
    return out


def draw(key: Key, proposal: Proposal, batch_size: int) -> Batch:
    """Take the B eligible rows with the highest scores, equals at random.

    Under ``shard_map`` over the prompt axis (``proposal.axis_name``) each shard offers its own B
    best, and one all-gather of ``shards * B`` rows decides; every shard returns the same batch.

    Args:
        key: decides among equals.
        proposal: N rows; a NaN score ranks last.
        batch_size: B.

    Returns:
        the batch, best first, padded with -1 if fewer than B rows are eligible.

    Raises:
        TypeError: if ``batch_size`` is no integer.
        ValueError: if ``batch_size`` is not positive.
    """
    checks.require_counts(batch_size=batch_size)
    # Written once, read by every pass; without the barrier each pass computes the score again.
    score = jax.lax.optimization_barrier(proposal.score)
    words = hash_words(key)
    rows = _best_rows(score, proposal.eligible, proposal.first_id, words, batch_size)
    ids = proposal.first_id + rows
    rank = _rank(rows, score[rows], proposal.eligible[rows])
    offer = [rank, hash_bits(words, ids) >> 8, ids, proposal.weight[rows]]
    if proposal.axis_name is not None:
        offer = _gather(offer, proposal.axis_name)
    rank, hashes, ids, weight = offer
    place = jnp.arange(ids.shape[0], dtype=jnp.int32)
    down = jnp.uint32(2**32 - 1) - hashes
    order = jax.lax.sort((-rank, down, ids, place), num_keys=3)[-1][:batch_size]
    valid = rank[order] > -jnp.inf
    index = jnp.where(valid, ids[order], -1)
    weight = jnp.where(valid, weight[order], 0)
    short = batch_size - index.shape[0]
    return Batch(
        index=jnp.pad(index, (0, short), constant_values=-1),
        weight=jnp.pad(weight, (0, short)).astype(jnp.float32),
        valid=jnp.pad(valid, (0, short)),
    )
