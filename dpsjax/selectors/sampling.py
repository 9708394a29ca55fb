"""Parts that draw at random: in proportion to a weight, or from each prompt's own belief.

The noise is hashed from the prompt's id and one key, so a draw does not depend on the devices.
"""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.noise import hash_uniform, row_gumbel
from dpsjax.selectors.protocol import Proposal, Selector, stateless
from dpsjax.selectors.rates import add
from dpsjax.selectors.trackers import BetaBelief
from dpsjax.types import Array, Float, Int, Key


def draw_proportional(power=1.0) -> Selector:
    """Turn the score w >= 0 into a draw without replacement in proportion to ``w**power``.

    The top B of ``power log w + Gumbel`` is such a draw. Rows of weight 0 come last.

    Args:
        power: 1 / temperature; may be traced.

    Returns:
        a part to put last.
    """
    checks.require_finite(power=power)

    def propose(key, proposal: Proposal) -> Proposal:
        score = proposal.score
        floor = jnp.asarray(jnp.finfo(score.dtype).tiny, score.dtype)
        logit = jnp.asarray(power, score.dtype) * jnp.log(jnp.maximum(score, floor))
        return proposal.replace(score=logit + row_gumbel(key, proposal.ids, score.dtype))

    return stateless(propose)


def draw_softmax(temperature=1.0) -> Selector:
    """Turn the score into a draw without replacement in proportion to ``exp(score / T)``.

    Args:
        temperature: T > 0; may be traced.

    Returns:
        a part to put last.

    Raises:
        ValueError: if the temperature is not positive.
    """
    checks.require_finite(temperature=temperature)
    checks.require(
        jnp.asarray(temperature) > 0,
        "temperature must be positive, got {temperature}",
        temperature=temperature,
    )

    def propose(key, proposal: Proposal) -> Proposal:
        score = proposal.score / jnp.asarray(temperature, proposal.score.dtype)
        return proposal.replace(score=score + row_gumbel(key, proposal.ids, score.dtype))

    return stateless(propose)


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


def add_thompson(target=0.5, band=None) -> Selector:
    """Minus the distance of one draw from each prompt's belief to the target (MoPPS).

    Args:
        target: gamma*; the order is that of the published ``-(draw - target)^2``.
        band: ``(low, high)`` instead of the target: all draws inside tie, those outside rank by
            their distance to it (the "threshold" strategy of the released code).

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_finite(target=target)

    def propose(key, proposal: Proposal) -> Proposal:
        belief = proposal.belief(BetaBelief, "add_thompson", "track_beta")
        rate = row_beta(key, proposal.ids, belief.a, belief.b)
        low, high = (target, target) if band is None else band
        below = jnp.asarray(low, rate.dtype) - rate
        above = rate - jnp.asarray(high, rate.dtype)
        return add(proposal, -jnp.maximum(jnp.maximum(below, above), 0))

    return stateless(propose)
