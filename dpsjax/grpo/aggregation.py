"""Token weights: how the losses of a mini-batch's tokens become one number.

The weights carry the whole normalisation and are computed once, over the full mini-batch. So the
sums of micro-batches, of gradient-accumulation steps and of shards add up to exactly the loss of
the whole, and a token of weight 0 contributes nothing to it.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dpsjax.types import Array, Bool, Float

# (mask bool[S, T], counted bool[S]) -> token weights float32[S, T]. `counted` names the sequences
# of the denominator. Tokens of the others get their weight too: multiply by a float[S] to take
# sequences out of the numerator.
Aggregation = Callable[[Array, Array], Array]


def token_mean(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Every token weighs the same (DAPO, arXiv 2503.14476, equation 12).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S].

    Returns:
        ``mask / number of counted tokens``, float32[S, T].

    >>> mask = jnp.array([[True, True, True], [True, False, False]])
    >>> token_mean(mask, jnp.array([True, True])).tolist()
    [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]
    """
    kept = mask.astype(jnp.float32)
    total = jnp.sum(jnp.where(counted[:, None], kept, 0))
    return kept / jnp.maximum(total, 1)


def sequence_mean(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Mean over the tokens of a sequence, then over sequences (GRPO, arXiv 2402.03300, eq. 3).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S]; sequences without tokens never count.

    Returns:
        ``mask / (length * number of counted sequences)``, float32[S, T].
    """
    kept = mask.astype(jnp.float32)
    length = jnp.sum(kept, axis=1)
    sequences = jnp.sum((counted & (length > 0)).astype(jnp.float32))
    return kept / (jnp.maximum(length, 1) * jnp.maximum(sequences, 1))[:, None]


def constant_length(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Dr. GRPO: divide by the number of sequences times the constant T (arXiv 2503.20783).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S]; sequences without tokens never count.

    Returns:
        ``mask / (T * number of counted sequences)``, float32[S, T].
    """
    kept = mask.astype(jnp.float32)
    sequences = jnp.sum((counted & jnp.any(mask, axis=1)).astype(jnp.float32))
    return kept / (jnp.maximum(sequences, 1) * mask.shape[1])
