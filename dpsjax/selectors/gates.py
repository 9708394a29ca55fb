"""Parts that say no: to rows before the draw, to groups after the rollouts."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.draw import top_rows
from dpsjax.selectors.noise import row_bits
from dpsjax.selectors.protocol import Evidence, Proposal, Selector, stateless


def candidate_pool(size: int) -> Selector:
    """Let through a fresh random subset of the pool, as the published selectors do.

    Args:
        size: how many rows; all if the pool is not larger.

    Returns:
        a part without memory.

    Raises:
        TypeError: if ``size`` is no integer.
        ValueError: if ``size`` is not positive.
    """
    checks.require_counts(size=size)

    def propose(key, proposal: Proposal) -> Proposal:
        if size >= proposal.ids.shape[0] and proposal.axis_name is None:
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
        return proposal.replace(eligible=proposal.eligible & (order >= cut))

    return stateless(propose)


def accept_mixed() -> Selector:
    """Veto groups that all passed or all failed (DAPO's dynamic sampling, arXiv 2503.14476).

    Returns:
        a part without memory; trackers still learn from vetoed groups.
    """

    def observe(evidence: Evidence) -> Evidence:
        mixed = (evidence.passes > 0) & (evidence.passes < evidence.trials)
        return evidence.replace(accept=evidence.accept & mixed)

    return stateless(observe=observe)


def accept_variance(threshold=0.5) -> Selector:
    """Veto groups whose reward variance is small (VCRL, arXiv 2509.19803).

    The variance of k passes in n trials over the largest that n trials allow,
    ``k (n - k) / floor(n/2) / ceil(n/2)``, must reach the threshold.

    Args:
        threshold: kappa in [0, 1]; may be traced. The published schedule is not known.

    Returns:
        a part without memory; trackers still learn from vetoed groups.
    """
    checks.require_finite(threshold=threshold)

    def observe(evidence: Evidence) -> Evidence:
        half = evidence.trials // 2
        largest = half * (evidence.trials - half)
        spread = (evidence.passes * (evidence.trials - evidence.passes)).astype(jnp.float32)
        enough = spread >= jnp.asarray(threshold, jnp.float32) * largest.astype(jnp.float32)
        return evidence.replace(accept=evidence.accept & enough & (spread > 0))

    return stateless(observe=observe)
