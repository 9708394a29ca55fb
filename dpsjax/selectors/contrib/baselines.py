"""Baselines that other papers measure themselves against: a fixed order, an averaged variance."""

import jax
import jax.numpy as jnp

from dpsjax.selectors.base import Proposal, Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import add_average, rollout_variance, track_average
from dpsjax.selectors.pool import column
from dpsjax.selectors.recipes import uniform_epochs
from dpsjax.types import Array, Key


def add_order(hardest_first: bool = False) -> Selector:
    """Place in a fixed order of difficulty, from 1/2 (first) down to 0 (last).

    Args:
        hardest_first: the other way round.

    Returns:
        a part whose state is made with the data ``difficulty`` [N].
    """

    def init(num_prompts: int, data=None) -> Array:
        dtype = jnp.result_type(float)
        return column(data, "difficulty", num_prompts, dtype, "add_order")

    def propose(key: Key, proposal: Proposal, difficulty: Array):
        known = difficulty if hardest_first else -difficulty
        lowest = jnp.min(jnp.where(proposal.eligible, known, jnp.inf))
        highest = jnp.max(jnp.where(proposal.eligible, known, -jnp.inf))
        if proposal.axis_name is not None:
            lowest = jax.lax.pmin(lowest, proposal.axis_name)
            highest = jax.lax.pmax(highest, proposal.axis_name)
        width = jnp.where(highest > lowest, highest - lowest, 1)
        place = jnp.where(proposal.eligible, 0.5 * (known - lowest) / width, 0)
        return proposal.add(place), difficulty

    return Selector(init, propose)


def static_order(hardest_first: bool = False) -> Selector:
    """Through the pool in a fixed order of difficulty, again and again; the easiest first.

    The difficulty of every prompt is data of the state:
    ``static_order().init(n, data={"difficulty": array of [n]})``. Prompts of equal difficulty come
    in random order. In float32, orders finer than about 1 part in 10**7/visits of the range of
    difficulties are not kept.

    Args:
        hardest_first: the other way round.

    Returns:
        the selector.
    """
    return chain(uniform_epochs(), add_order(hardest_first))


def variance_ema(decay=0.9, start=0.25) -> Selector:
    """The prompts with the largest average of p (1 - p): the "Var+EMA" ablation of DPS.

    arXiv 2603.10887.

    Departures: the paper's exact definition is not public; this is the plain reading.

    Args:
        decay: weight of the past.
        start: of prompts never seen; 1/4, the largest possible, lets them come first.

    Returns:
        the selector.
    """
    return chain(track_average(rollout_variance, decay, start), add_average())


ENTRIES = (Entry(static_order, needs=("difficulty",)), Entry(variance_ema, "2603.10887"))
