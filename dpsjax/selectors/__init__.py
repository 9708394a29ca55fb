"""Selectors: which prompts to roll out next.

Recipes (nouns) are chains of parts (verbs); write your own the same way with :func:`chain`.
"""

from dpsjax.selectors.api import observe, select
from dpsjax.selectors.draw import draw
from dpsjax.selectors.gates import accept_mixed, candidate_pool
from dpsjax.selectors.protocol import (
    Batch,
    ChainState,
    Evidence,
    Proposal,
    Selector,
    chain,
    stateless,
)
from dpsjax.selectors.recipes import dps, uniform
from dpsjax.selectors.scores import add_entropy, add_state_prob, middle_state, partial_states
from dpsjax.selectors.trackers import StateBelief, track_hmm

__all__ = [
    "Batch",
    "ChainState",
    "Evidence",
    "Proposal",
    "Selector",
    "StateBelief",
    "accept_mixed",
    "add_entropy",
    "add_state_prob",
    "candidate_pool",
    "chain",
    "dps",
    "draw",
    "middle_state",
    "observe",
    "partial_states",
    "select",
    "stateless",
    "track_hmm",
    "uniform",
]
