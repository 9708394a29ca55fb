"""Parts that leave something to chance; the noise depends on key and prompt id alone."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief.noise import row_bits, row_gumbel
from dpsjax.selectors.base import Proposal, Selector, stateless
from dpsjax.selectors.largest import top_rows


def draw_proportional(power=1.0) -> Selector:
    """Turn the score w >= 0 into a draw without replacement in proportion to ``w**power``.

    The top B of ``power log w + Gumbel`` is such a draw. Rows of weight 0 come last.

    Args:
        power: 1 / temperature; may be traced.

    Returns:
        a part to put after the scores.
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
        a part to put after the scores.

    Raises:
        ValueError: the temperature is not positive.
    """
    checks.require_positive(temperature=temperature)

    def propose(key, proposal: Proposal) -> Proposal:
        score = proposal.score / jnp.asarray(temperature, proposal.score.dtype)
        return proposal.replace(score=score + row_gumbel(key, proposal.ids, score.dtype))

    return stateless(propose)


def candidate_pool(size: int) -> Selector:
    """Let through a fresh random subset of the pool, as the published selectors do.

    Args:
        size: how many rows; all if the pool is not larger.

    Returns:
        a part without memory.

    Raises:
        TypeError: ``size`` is no integer.
        ValueError: ``size`` is not positive.
    """
    checks.require_counts(size=size)

    def propose(key, proposal: Proposal) -> Proposal:
        if size >= proposal.score.shape[0] and proposal.axis_name is None:
            return proposal
        # 29 random bits as normal positive floats, whose order is that of their bits: backends
        # find the largest floats without a sort, but not the largest integers.
        bits = (row_bits(key, proposal.ids) >> 3) + jnp.uint32(0x00800000)
        order = jax.lax.bitcast_convert_type(bits, jnp.float32)
        order = jnp.where(proposal.eligible, order, -1.0)
        best = order[top_rows(order, size)]
        if proposal.axis_name is not None:
            best = jnp.sort(jax.lax.all_gather(best, proposal.axis_name, tiled=True))[::-1]
        cut = best[min(size, best.shape[0]) - 1]
        return proposal.bar(order < cut)

    return stateless(propose)
