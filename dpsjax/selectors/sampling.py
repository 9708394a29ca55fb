"""Parts that draw at random: in proportion to a weight, or from each prompt's own belief.

The noise is hashed from the prompt's id and one key, so a draw does not depend on the devices.
"""

import jax
import jax.numpy as jnp

from dpsjax.selectors.noise import row_gumbel, row_uniform
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
    """

    def propose(key, proposal: Proposal) -> Proposal:
        score = proposal.score / jnp.asarray(temperature, proposal.score.dtype)
        return proposal.replace(score=score + row_gumbel(key, proposal.ids, score.dtype))

    return stateless(propose)


def _attempt(key, ids, shape):
    """One round of Marsaglia and Tsang's (2000) sampler of Gamma(shape + [shape < 1])."""
    dtype = shape.dtype
    normal_key, uniform_key = jax.random.split(key)
    offset = jnp.where(shape < 1, shape + 1, shape) - 1 / 3
    centred = 2 * row_uniform(normal_key, ids, dtype) - 1
    normal = jax.lax.erf_inv(centred) * jnp.asarray(2**0.5, dtype)
    root = 1 + normal / jnp.sqrt(9 * offset)
    cube = root * root * root
    positive = cube > 0
    log_cube = jnp.log(jnp.where(positive, cube, jnp.ones_like(cube)))
    bound = 0.5 * normal * normal + offset * (1 - cube + log_cube)
    accept = positive & (jnp.log(row_uniform(uniform_key, ids, dtype)) < bound)
    return offset * cube, accept


def _beta_attempt(key, ids, a, b):
    left_key, right_key, boost_key = jax.random.split(key, 3)
    left, left_accept = _attempt(left_key, ids, a)
    right, right_accept = _attempt(right_key, ids, b)

    def boost(gammas):
        """Gamma(s) = Gamma(s + 1) U**(1/s), for shapes below 1."""
        out = []
        for gamma, shape, part in zip(gammas, (a, b), jax.random.split(boost_key), strict=True):
            power = jnp.log(row_uniform(part, ids, shape.dtype)) / shape
            out.append(jnp.where(shape < 1, gamma * jnp.exp(power), gamma))
        return tuple(out)

    small = jnp.any((a < 1) | (b < 1))
    left, right = jax.lax.cond(small, boost, lambda gammas: gammas, (left, right))
    total = left + right  # both underflow to 0 for tiny shapes only: then a coin decides
    coin = (row_uniform(boost_key, ids, a.dtype) * (a + b) < a).astype(a.dtype)
    ratio = left / jnp.where(total > 0, total, jnp.ones_like(total))
    return jnp.where(total > 0, ratio, coin), left_accept & right_accept


def row_beta(
    key: Key, ids: Int[Array, "N"], a: Float[Array, "N"], b: Float[Array, "N"]
) -> Float[Array, "N"]:
    """One Beta(a, b) number per row: exact rejection, from hashed noise.

    A Beta number is a ratio of two Gammas (Marsaglia and Tsang, ACM TOMS 2000). One attempt over
    all rows accepts more than nine in ten; the rest are gathered into a buffer of N/8 rows, which
    repeats until all are accepted, as often as it takes to empty the list of the rejected.

    Args:
        key: a JAX random key.
        ids: prompt ids.
        a: positive.
        b: positive.

    Returns:
        numbers in [0, 1], independent over rows; each depends on key, id, a and b alone.
    """
    size = ids.shape[0]
    room = max(size // 8, 1)
    value, accepted = _beta_attempt(jax.random.fold_in(key, 0), ids, a, b)

    def any_rejected(carry):
        return ~jnp.all(carry[1])

    def redo(carry):
        value, accepted = carry
        rejected = jnp.nonzero(~accepted, size=room, fill_value=size)[0].astype(jnp.int32)
        source = jnp.minimum(rejected, size - 1)
        part_ids, part_a, part_b = ids[source], a[source], b[source]

        def again(inner):
            attempt, part_value, part_accepted = inner
            new, good = _beta_attempt(jax.random.fold_in(key, attempt), part_ids, part_a, part_b)
            part_value = jnp.where(part_accepted, part_value, new)
            return attempt + 1, part_value, part_accepted | good

        start = (jnp.int32(1), value[source], rejected >= size)
        _, part_value, _ = jax.lax.while_loop(lambda inner: ~jnp.all(inner[2]), again, start)
        value = value.at[rejected].set(part_value, mode="drop")
        return value, accepted.at[rejected].set(True, mode="drop")

    return jax.lax.while_loop(any_rejected, redo, (value, accepted))[0]


def add_thompson(target=0.5, band=None) -> Selector:
    """Minus the distance of one draw from each prompt's belief to the target (MoPPS).

    Args:
        target: gamma*; the order is that of the published ``-(draw - target)^2``.
        band: ``(low, high)`` instead of the target: all draws inside tie, those outside rank by
            their distance to it (the "threshold" strategy of the released code).

    Returns:
        a part that needs :func:`track_beta` before it.
    """

    def propose(key, proposal: Proposal) -> Proposal:
        belief = proposal.belief(BetaBelief, "add_thompson", "track_beta")
        rate = row_beta(key, proposal.ids, belief.a, belief.b)
        low, high = (target, target) if band is None else band
        below = jnp.asarray(low, rate.dtype) - rate
        above = rate - jnp.asarray(high, rate.dtype)
        return add(proposal, -jnp.maximum(jnp.maximum(below, above), 0))

    return stateless(propose)
