"""Random numbers per prompt, from the prompt's id and one key.

Each number depends on ``(key, id)`` alone, so a selection is the same on one device and on many,
and costs a few integer operations a row. The mixer is a keyed 32-bit avalanche hash (two
xor-shift-multiply rounds of three steps each); its bits are tested for uniformity and
independence. It is not meant for cryptography.
"""

import jax
import jax.numpy as jnp

from dpsjax.types import Array, Float, Int, Key, UInt


def _mix(bits):
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 14)


def hash_words(key: Key) -> UInt[Array, "2"]:
    """The two words that a key gives the hash."""
    return jax.random.bits(key, (2,), jnp.uint32)


def hash_bits(words: UInt[Array, "2"], ids: Int[Array, "..."]) -> UInt[Array, "..."]:
    """The hash of each id under a key's words; uint32 of the same shape."""
    return _mix(_mix(ids.astype(jnp.uint32) ^ words[0]) + words[1])


def row_bits(key: Key, ids: Int[Array, "..."]) -> UInt[Array, "..."]:
    """32 random bits for each id."""
    return hash_bits(hash_words(key), ids)


def row_uniform(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Uniform on the open interval (0, 1), 2**23 equally likely values, for each id."""
    return hash_uniform(hash_words(key), ids, dtype)


def hash_uniform(
    words: UInt[Array, "2"], ids: Int[Array, "..."], dtype=jnp.float32
) -> Float[Array, "..."]:
    """As :func:`row_uniform`, from a key's words."""
    mantissa = (hash_bits(words, ids) >> 9).astype(dtype)
    return (mantissa + jnp.asarray(0.5, dtype)) * jnp.asarray(2.0**-23, dtype)


def row_gumbel(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Standard Gumbel noise: the top B of ``log p + noise`` is a draw in proportion to p.

    Exact in the tail down to chances of 2**-32: ``-log(-log u)`` with u near 1 is taken from
    v = 1 - u, of which all 32 bits count, as ``-log(-log1p(-v))``.
    """
    bits = row_bits(key, ids)
    high = (bits >> 16).astype(dtype) * jnp.asarray(2.0**-16, dtype)
    low = (bits & 0xFFFF).astype(dtype) + jnp.asarray(0.5, dtype)
    # Added to 0, high bits leave the low ones all their digits: small v are exact.
    value = jnp.minimum(high + low * jnp.asarray(2.0**-32, dtype), 1 - jnp.finfo(dtype).epsneg)
    return -jnp.log(-jnp.log1p(-value))


def row_normal(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Standard normal noise for each id, by inversion."""
    return jax.scipy.special.ndtri(row_uniform(key, ids, dtype))


def _gamma(words, ids, shape):
    """Marsaglia and Tsang's attempt at Gamma(shape + [shape < 1]); -1 if it is rejected.

    ACM TOMS 26 (2000). More than 95 in 100 attempts hold at every shape.
    """
    offset = jnp.where(shape < 1, shape + 1, shape) - 1 / 3
    normal = jax.lax.erf_inv(2 * hash_uniform(words[0], ids) - 1) * 2**0.5
    root = 1 + normal * jax.lax.rsqrt(9 * offset)
    cube = root * root * root
    log_cube = jnp.log(jnp.maximum(cube, 1e-30))
    bound = 0.5 * normal * normal + offset * (1 - cube + log_cube)
    holds = (cube > 0) & (jnp.log(hash_uniform(words[1], ids)) < bound)
    return jnp.where(holds, offset * cube, -1)


def _attempt(words, ids, a, b):
    """An attempt at Beta(a, b), the share of one Gamma in the sum of two; -1 if it is rejected."""
    left, right = _gamma(words[0:2], ids, a), _gamma(words[2:4], ids, b)

    def lift():
        """Gamma(s) = Gamma(s + 1) U**(1/s), for shapes below 1; log of the ratio of powers."""
        zero = jnp.zeros_like(a)
        up = jnp.where(a < 1, jnp.log(hash_uniform(words[4], ids)) / a, zero)
        return jnp.where(b < 1, jnp.log(hash_uniform(words[5], ids)) / b, zero) - up

    power = jax.lax.cond(jnp.any((a < 1) | (b < 1)), lift, lambda: jnp.zeros_like(a))
    return jnp.where((left > 0) & (right > 0), left / (left + right * jnp.exp(power)), -1)


def _rows_of(mask, room):
    """The first ``room`` rows where a mask holds, padded with its length; no scan over the rows.

    Places within blocks of 64 come from a product with a triangle of ones, exact in float32.
    """
    size, block = mask.shape[0], 64
    ones = jnp.pad(mask, (0, -size % block)).reshape(-1, block).astype(jnp.float32)
    within = (ones @ jnp.triu(jnp.ones((block, block), jnp.float32))).astype(jnp.int32)
    ends = jnp.cumsum(within[:, -1], dtype=jnp.int32)
    place = (within + (ends - within[:, -1])[:, None]).reshape(-1)[:size] - 1
    place = jnp.where(mask, place, room)
    rows = jnp.arange(size, dtype=jnp.int32)
    return jnp.full(room, size, jnp.int32).at[place].set(rows, mode="drop")


def row_beta(
    key: Key, ids: Int[Array, "N"], a: Float[Array, "N"], b: Float[Array, "N"]
) -> Float[Array, "N"]:
    """One Beta(a, b) number per row: exact rejection, from hashed noise.

    A Beta number is a ratio of two Gammas. One attempt over all rows holds for more than nine in
    ten; the others are gathered into a buffer of N/8 rows that tries until all hold, as often as
    it takes to empty the list of the rejected. Computed in float32.

    Args:
        key: a JAX random key.
        ids: prompt ids.
        a: positive.
        b: positive.

    Returns:
        numbers in [0, 1], independent over rows; each depends on key, id, a and b alone.
    """
    size, dtype = ids.shape[0], a.dtype
    room = max(size // 8, 1)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    words = jax.random.bits(key, (6, 2), jnp.uint32)

    def redo(value):
        rejected = _rows_of(value < 0, room)
        source = jnp.minimum(rejected, size - 1)
        part = ids[source], a[source], b[source]

        def again(carry):
            number, drawn = carry
            # A Weyl sequence in the second word gives each attempt its own hash.
            fresh = words.at[:, 1].add(number * jnp.uint32(0x9E3779B9))
            return number + 1, jnp.where(drawn < 0, _attempt(fresh, *part), drawn)

        start = jnp.uint32(1), jnp.where(rejected < size, -1, jnp.zeros_like(part[1]))
        drawn = jax.lax.while_loop(lambda carry: jnp.any(carry[1] < 0), again, start)[1]
        return value.at[rejected].set(drawn, mode="drop")

    value = _attempt(words, ids, a, b)
    return jax.lax.while_loop(lambda value: jnp.any(value < 0), redo, value).astype(dtype)
