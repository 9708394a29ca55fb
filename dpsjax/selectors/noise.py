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
    """32 random bits for each id.

    Args:
        key: a JAX random key.
        ids: non-negative prompt ids.

    Returns:
        uint32 of the same shape.
    """
    return hash_bits(hash_words(key), ids)


def row_uniform(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Uniform on the open interval (0, 1), 2**23 equally likely values.

    Args:
        key: a JAX random key.
        ids: prompt ids.
        dtype: of the result.

    Returns:
        floats of the same shape.
    """
    return hash_uniform(hash_words(key), ids, dtype)


def hash_uniform(
    words: UInt[Array, "2"], ids: Int[Array, "..."], dtype=jnp.float32
) -> Float[Array, "..."]:
    """As :func:`row_uniform`, from a key's words."""
    mantissa = (hash_bits(words, ids) >> 9).astype(dtype)
    return (mantissa + jnp.asarray(0.5, dtype)) * jnp.asarray(2.0**-23, dtype)


def row_gumbel(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Standard Gumbel noise: the top B of ``log p + noise`` is a draw in proportion to p."""
    return -jnp.log(-jnp.log(row_uniform(key, ids, dtype)))


def row_normal(key: Key, ids: Int[Array, "..."], dtype=jnp.float32) -> Float[Array, "..."]:
    """Standard normal noise, by inversion."""
    return jax.scipy.special.ndtri(row_uniform(key, ids, dtype))
