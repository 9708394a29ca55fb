"""From scores to a batch: the B best rows, equals drawn at random, on one device or many.

The order is total, so the result does not depend on how the pool is sharded: places that a quota
grants, then the higher tier, the higher score, a hash of (key, id), the lower id. No full sort is
needed. The B best rows lie in the B blocks with the largest maxima, so one pass over the pool for
block maxima and a second over B blocks finds the cut; a second such pass, over the hash of the rows
that equal the cut, chooses among equals. Tiers and strata repeat this for their own rows.
"""

import jax
import jax.numpy as jnp

from dpsjax.belief import rows as addressing
from dpsjax.belief.noise import hash_bits, hash_words
from dpsjax.selectors.base import Batch, Proposal
from dpsjax.selectors.largest import top_rows_by
from dpsjax.types import Array, Bool, Int, Key


def _rank(rows, score, eligible):
    """What decides: the score, NaN as its lowest finite value; minus infinity if not eligible."""
    del rows
    lowest = jnp.asarray(jnp.finfo(score.dtype).min, score.dtype)
    return jnp.where(eligible, jnp.where(score > lowest, score, lowest), -jnp.inf)


def _best_rows(score, eligible, first_id, words, count):
    """Rows of the ``count`` best by (rank, hash): exact, equals chosen by the hash."""
    count = min(count, score.shape[0])
    best = top_rows_by(_rank, (score, eligible), count + 1)
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
        return top_rows_by(order, (score, eligible), count)

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


def _classes(proposal: Proposal):
    """The kinds of rows that compete for themselves first: ``(tier, stratum, bool[N])``."""
    low, high = proposal.tiers
    strata = 1 if proposal.quotas is None else proposal.quotas.shape[0]
    for tier in range(high, low - 1, -1):
        for stratum in range(strata):
            own = proposal.eligible
            if proposal.tier is not None:
                own = own & (proposal.tier == tier)
            if proposal.strata is not None:
                own = own & (proposal.strata == stratum)
            yield tier, stratum, own


def draw(key: Key, proposal: Proposal) -> Batch:
    """Take the B best eligible rows, equals at random.

    Under ``shard_map`` over the prompt axis (``proposal.axis_name``) each shard offers its own B
    best of each tier and stratum, and one all-gather of these rows decides; every shard returns
    the same batch.

    Args:
        key: decides among equals.
        proposal: N rows; a NaN score ranks last in its tier.

    Returns:
        the batch, best first, padded with -1 if fewer than B rows are eligible. Quotas are filled
        first; places that a stratum cannot fill go to the best of the others.
    """
    size = proposal.batch_size
    # Written once, read by every pass; without the barrier each pass computes the score again.
    score = jax.lax.optimization_barrier(proposal.score)
    words, weight = hash_words(key), proposal.weight
    offers = []
    for tier, stratum, own in _classes(proposal):
        rows = _best_rows(score, own, proposal.first_id, words, size)
        ids = proposal.first_id + rows
        rank = _rank(rows, score[rows], own[rows])
        one = jnp.ones(rows.shape, jnp.float32)
        offers.append(
            [
                rank,
                hash_bits(words, ids) >> 8,
                ids,
                one if weight is None else weight[rows].astype(jnp.float32),
                jnp.full(rows.shape, tier, jnp.int32),
                jnp.full(rows.shape, stratum, jnp.int32),
            ]
        )
    offer = [jnp.concatenate(column) for column in zip(*offers, strict=True)]
    if proposal.axis_name is not None:
        offer = _gather(offer, proposal.axis_name)
    rank, hashes, ids, weight, tier, stratum = offer
    down = jnp.uint32(2**32 - 1) - hashes
    valid = rank > -jnp.inf
    tier = jnp.where(valid, tier, proposal.tiers[0] - 1)
    over = _over_quota(proposal, tier, stratum, (-tier, -rank, down, ids))
    place = jnp.arange(ids.shape[0], dtype=jnp.int32)
    order = jax.lax.sort((over, -tier, -rank, down, ids, place), num_keys=5)[-1][:size]
    valid = valid[order]
    index = jnp.where(valid, ids[order], -1)
    short = size - index.shape[0]
    return Batch(
        index=jnp.pad(index, (0, short), constant_values=-1),
        weight=jnp.pad(jnp.where(valid, weight[order], 0), (0, short)),
        trials=jnp.zeros(size, jnp.int32),
        valid=jnp.pad(valid, (0, short)),
    )


def _over_quota(proposal, tier, stratum, keys):
    """0 for rows within their stratum's quota, 1 beyond it, 2 if drawn only when short."""
    last = jnp.where(tier < 0, 2, 0).astype(jnp.int32)
    if proposal.quotas is None:
        return last
    place = jnp.arange(stratum.shape[0], dtype=jnp.int32)
    ranked, order = jax.lax.sort((stratum, *keys, place), num_keys=1 + len(keys))[:: len(keys) + 1]
    start = jnp.searchsorted(ranked, ranked, side="left").astype(jnp.int32)
    within = (place - start < proposal.quotas[ranked]).astype(jnp.int32)
    within = jnp.zeros_like(place).at[order].set(within)
    return jnp.maximum(last, 1 - within)


def best(key: Key, proposal: Proposal, count: Int[Array, ""] | int) -> Bool[Array, "N"]:
    """Mark the ``count`` best eligible rows of the whole pool; at most the batch's size.

    Args:
        key: decides among equals.
        proposal: of this shard.
        count: how many; may be traced.

    Returns:
        bool[N].
    """
    size = proposal.score.shape[0]
    index = draw(key, proposal).index
    taken = (jnp.arange(index.shape[0], dtype=jnp.int32) < count) & (index >= 0)
    local = jnp.where(taken, index - proposal.first_id, -1)
    target = addressing.scatter_index(local, size)
    return jnp.zeros(size, bool).at[target].set(True, mode="drop")
