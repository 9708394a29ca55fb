"""Selectors: which prompts to roll out next.

Recipes (nouns) are chains of parts (verbs); write your own the same way with :func:`chain`.
"""

from dpsjax.belief.beta import BetaView
from dpsjax.belief.ema import RateView
from dpsjax.belief.filter import Filter, View
from dpsjax.belief.grid import GridView
from dpsjax.belief.kalman import GaussianView
from dpsjax.belief.states import StateView
from dpsjax.selectors.api import Outlook, advance, has_belief, inspect, observe, select
from dpsjax.selectors.around import surround
from dpsjax.selectors.base import (
    Batch,
    ChainState,
    Evidence,
    Feedback,
    Proposal,
    Selector,
    chain,
    stateless,
)
from dpsjax.selectors.catalogue import catalogue, entry_of
from dpsjax.selectors.combine import (
    allocate,
    cool_down,
    freeze,
    mix,
    revisit,
    schedule,
    stratify,
)
from dpsjax.selectors.draw import draw, draw_proportional, draw_softmax
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.pool import add_prompts, prompt_axes, remove_prompts, reserve
from dpsjax.selectors.recipes import beta_mean, dps, dps_binomial, mopps, uniform, uniform_epochs
from dpsjax.selectors.refill import fill
from dpsjax.selectors.score import (
    accept_mixed,
    add_average,
    add_entropy,
    add_fewest_visits,
    add_learnability,
    add_mixed_prob,
    add_nearness,
    add_state_prob,
    add_thompson,
    candidate_pool,
    from_view,
    middle_state,
    partial_states,
)
from dpsjax.selectors.track import (
    Average,
    Visits,
    pass_rate,
    rollout_variance,
    track,
    track_average,
    track_beta,
    track_hmm,
    track_logit,
    track_solve_rate,
    track_visits,
)
