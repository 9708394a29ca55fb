"""Selectors: which prompts to roll out next.

Recipes (nouns) are chains of parts (verbs); write your own the same way with :func:`chain`.
"""

from dpsjax.belief.beta import BetaView
from dpsjax.belief.ema import RateView
from dpsjax.belief.filter import Filter, View
from dpsjax.belief.grid import GridView
from dpsjax.belief.kalman import GaussianView
from dpsjax.belief.states import StateView, middle_state, partial_states
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
from dpsjax.selectors.chance import candidate_pool, draw_proportional, draw_softmax
from dpsjax.selectors.combine import (
    allocate,
    cool_down,
    freeze,
    mix,
    revisit,
    schedule,
    stratify,
)
from dpsjax.selectors.contrib.adarft import adarft, add_difficulty_target
from dpsjax.selectors.contrib.arcus import (
    ArcView,
    add_arc_nearness,
    add_paced_arc_nearness,
    arcus,
    track_arc,
)
from dpsjax.selectors.contrib.baselines import add_order, static_order, variance_ema
from dpsjax.selectors.contrib.cures import add_deviation, cures, hold
from dpsjax.selectors.contrib.dapo import dynamic_sampling
from dpsjax.selectors.contrib.depo import (
    depo,
    explorability,
    gaussian_difficulty_sample,
    pagerank,
    track_explorability,
    weighted_dpp_greedy,
)
from dpsjax.selectors.contrib.gcs import add_bell, gcs
from dpsjax.selectors.contrib.greso import greso, skip_streaks
from dpsjax.selectors.contrib.insight import add_information, insight
from dpsjax.selectors.contrib.kgps import add_expected_variance, kgps
from dpsjax.selectors.contrib.knapsack import knapsack
from dpsjax.selectors.contrib.lilo import lilo
from dpsjax.selectors.contrib.lppo import (
    add_progress,
    learning_progress,
    lppo,
    progress_weight,
    weigh_progress,
)
from dpsjax.selectors.contrib.mapp import mapp
from dpsjax.selectors.contrib.plr import prioritize, prioritized_replay
from dpsjax.selectors.contrib.sec import draw_categories, sec
from dpsjax.selectors.contrib.speed import speed
from dpsjax.selectors.contrib.srpo import history_resampling, skip_solved
from dpsjax.selectors.contrib.vcrl import accept_variance, vcrl
from dpsjax.selectors.contrib.vip import vip
from dpsjax.selectors.draw import draw
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.frontier import frontier, space_out, track_difficulty
from dpsjax.selectors.history import (
    Average,
    Visits,
    add_average,
    add_fewest_visits,
    pass_rate,
    rollout_variance,
    track_average,
    track_visits,
)
from dpsjax.selectors.pool import add_prompts, prompt_axes, remove_prompts, reserve
from dpsjax.selectors.recipes import beta_mean, dps, dps_binomial, mopps, uniform, uniform_epochs
from dpsjax.selectors.refill import fill
from dpsjax.selectors.score import (
    accept_mixed,
    add_entropy,
    add_learnability,
    add_mixed_prob,
    add_nearness,
    add_state_prob,
    add_thompson,
    from_view,
)
from dpsjax.selectors.track import track, track_beta, track_hmm, track_logit, track_solve_rate

__all__ = [
    "ArcView",
    "Average",
    "Batch",
    "BetaView",
    "ChainState",
    "Entry",
    "Evidence",
    "Feedback",
    "Filter",
    "GaussianView",
    "GridView",
    "Outlook",
    "Proposal",
    "RateView",
    "Selector",
    "StateView",
    "View",
    "Visits",
    "accept_mixed",
    "accept_variance",
    "adarft",
    "add_arc_nearness",
    "add_average",
    "add_bell",
    "add_deviation",
    "add_difficulty_target",
    "add_entropy",
    "add_expected_variance",
    "add_fewest_visits",
    "add_information",
    "add_learnability",
    "add_mixed_prob",
    "add_nearness",
    "add_order",
    "add_paced_arc_nearness",
    "add_progress",
    "add_prompts",
    "add_state_prob",
    "add_thompson",
    "advance",
    "allocate",
    "arcus",
    "beta_mean",
    "candidate_pool",
    "catalogue",
    "chain",
    "cool_down",
    "cures",
    "depo",
    "dps",
    "dps_binomial",
    "draw",
    "draw_categories",
    "draw_proportional",
    "draw_softmax",
    "dynamic_sampling",
    "entry_of",
    "explorability",
    "fill",
    "freeze",
    "from_view",
    "gaussian_difficulty_sample",
    "gcs",
    "greso",
    "has_belief",
    "history_resampling",
    "hold",
    "insight",
    "inspect",
    "kgps",
    "knapsack",
    "learning_progress",
    "lilo",
    "lppo",
    "mapp",
    "middle_state",
    "mix",
    "mopps",
    "observe",
    "pagerank",
    "partial_states",
    "pass_rate",
    "prioritize",
    "prioritized_replay",
    "progress_weight",
    "prompt_axes",
    "remove_prompts",
    "reserve",
    "revisit",
    "rollout_variance",
    "schedule",
    "sec",
    "select",
    "skip_solved",
    "skip_streaks",
    "speed",
    "stateless",
    "static_order",
    "stratify",
    "surround",
    "track",
    "track_arc",
    "track_average",
    "track_beta",
    "track_explorability",
    "track_hmm",
    "track_logit",
    "track_solve_rate",
    "track_visits",
    "uniform",
    "uniform_epochs",
    "variance_ema",
    "vcrl",
    "vip",
    "weigh_progress",
    "weighted_dpp_greedy",
]
