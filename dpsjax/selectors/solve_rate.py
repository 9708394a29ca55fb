"""Parts of DPS with binomial emissions: a chain over solve rates, and its chance of a mixed group.

See :mod:`dpsjax.belief.binomial` for the equations.
"""

from typing import NamedTuple

import numpy as np

from dpsjax import checks
from dpsjax.belief import binomial
from dpsjax.selectors.protocol import Evidence, Proposal, Selector, stateless
from dpsjax.selectors.rates import add
from dpsjax.types import Array, Float


class RateBelief(NamedTuple):
    """Published by :func:`track_solve_rate`: a belief over ``binomial.rates(K)``."""

    belief: binomial.Belief

    @property
    def cells(self) -> int:
        """K."""
        return self.belief.posterior.shape[0]

    @property
    def prob(self) -> Float[Array, "K N"]:
        """P(cell) in the step to come."""
        return binomial.prior(self.belief)

    def mean(self, values: np.ndarray) -> Float[Array, "N"]:
        """Mean in the step to come of a value per cell, float[K]."""
        return binomial.expectation(self.belief, values)


def track_solve_rate(
    cells: int = 16, moves=(1.0, 46.0, 2.5, 0.5), decay=0.9, memory=0.9
) -> Selector:
    """Filter each prompt's solve rate on a grid, with moves that the prompts share.

    Args:
        cells: K of the grid; a prompt costs K floats.
        moves: prior counts of moving a cell down, staying, moving up, and jumping.
        decay: of the counts of moves; may be traced.
        memory: weight of the past in what is believed of prompts never seen; may be traced.

    Returns:
        a part that publishes a :class:`RateBelief`. Each ``observe`` is one time step.

    Raises:
        ValueError: as :func:`dpsjax.belief.binomial.params` does.
    """
    checks.require_finite(decay=decay, memory=memory)
    checks.require_counts(cells=cells)
    params = binomial.params(moves, decay, memory)

    def propose(key, proposal: Proposal, belief: binomial.Belief):
        del key
        return proposal.publish(RateBelief(belief)), belief

    def observe(evidence: Evidence, belief: binomial.Belief):
        index, passes, trials = evidence.index, evidence.passes, evidence.trials
        learned = binomial.learn(belief, index, passes, trials)
        learned = binomial.shard_sums(learned, evidence.axis_name)
        return evidence, binomial.update(params, belief, index, trials, learned)

    return Selector(lambda num_prompts: binomial.init(params, num_prompts, cells), propose, observe)


def add_mixed_prob(group: int = 8) -> Selector:
    """The probability that a group neither all passes nor all fails.

    Args:
        group: G rollouts, at least 2.

    Returns:
        a part that needs :func:`track_solve_rate` before it.

    Raises:
        ValueError: if ``group`` is below 2.
    """
    checks.require_counts(group=group)
    if group < 2:
        raise ValueError(f"group must be at least 2, got {group}: one rollout always agrees")

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(RateBelief, "add_mixed_prob", "track_solve_rate")
        return add(proposal, belief.mean(binomial.mixed_chance(belief.cells, group)))

    return stateless(propose)
