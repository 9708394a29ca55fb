"""The names that ``dpsjax compare`` knows: selectors at their published settings, and students.

In Python no name is needed: pass a dictionary of your own selectors to
:func:`dpsjax.lab.compare.compare`.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dpsjax import selectors as s
from dpsjax.lab import students
from dpsjax.lab.measures import outcome_of_arc, outcome_of_average, outcome_of_logit
from dpsjax.lab.simulate import Contender
from dpsjax.lab.students import TOPICS, Known, StudentParams
from dpsjax.selectors import Selector
from dpsjax.types import Array

WAVES = 10  # most waves for one update of a selector that fills its batches; DAPO's own cap
COOL_DOWN = 12  # steps
MOST = 32  # most rollouts of one prompt, where they are allocated
SCREEN, SCREENED = 4, 24  # rollouts of a prompt, before and after it passed SPEED's screening
LEVELS = 5  # of difficulty, as categories


def _knapsack(rate: Array, budget: int) -> Array:
    return s.knapsack(s.knapsack_value(rate, MOST), budget)


def _vip(rate: Array, budget: int) -> Array:
    return s.vip_allocate(rate, budget, lowest=3, highest=MOST)


def _by_deviation(rate: Array, budget: int) -> Array:
    return s.allocate_proportional(jnp.sqrt(rate * (1 - rate)), budget, 1)


def _static_order(known: Known) -> Selector:
    return s.static_order(known.difficulty)


def _sec(known: Known) -> Selector:
    return s.sec(known.topic, TOPICS)


def _sec_levels(known: Known) -> Selector:
    level = jnp.floor(known.difficulty * (LEVELS / 100)).astype(jnp.int32)
    return s.sec(jnp.minimum(level, LEVELS - 1), LEVELS)


def _adarft(known: Known) -> Selector:
    return s.adarft(known.difficulty)


# name -> what makes the contender, given the number of rollouts in a group
CONTENDERS: dict[str, Callable[[int], Contender]] = {
    "uniform": lambda group: Contender(s.uniform()),
    "uniform-epochs": lambda group: Contender(s.uniform_epochs()),
    "dps": lambda group: Contender(s.dps()),
    "dps-0.2": lambda group: Contender(s.dps(decay=0.2)),
    "dps-0.8": lambda group: Contender(s.dps(decay=0.8)),
    "dps-1.0": lambda group: Contender(s.dps(decay=1.0)),
    "dps-entropy": lambda group: Contender(s.dps(entropy=0.1)),
    "dps-candidates": lambda group: Contender(s.dps(candidates=2048)),
    "dps-cool": lambda group: Contender(s.chain(s.dps(), s.cool_down(COOL_DOWN))),
    "dps-proportional": lambda group: Contender(s.chain(s.dps(), s.draw_proportional())),
    "dps-2": lambda group: Contender(s.dps(num_states=2)),
    "dps-5-middle": lambda group: Contender(s.dps(num_states=5, target=s.middle_state(5))),
    "dps-7": lambda group: Contender(s.dps(num_states=7)),
    "dps-binomial": lambda group: Contender(s.dps_binomial(group=group)),
    "mopps": lambda group: Contender(s.mopps()),
    "mopps-band": lambda group: Contender(s.mopps(band=(0.3, 0.7))),
    "beta-mean": lambda group: Contender(s.beta_mean()),
    "beta-cool": lambda group: Contender(s.chain(s.beta_mean(), s.cool_down(COOL_DOWN))),
    "mapp": lambda group: Contender(s.mapp(group=group)),
    "mapp-top": lambda group: Contender(s.mapp(group=group, top=True)),
    "insight": lambda group: Contender(s.insight(group=group)),
    "kgps": lambda group: Contender(s.kgps(), predict=outcome_of_logit),
    "arcus": lambda group: Contender(s.arcus(group=group), predict=outcome_of_arc),
    "arcus-paced": lambda group: Contender(
        s.arcus(group=group, paced=True), predict=outcome_of_arc
    ),
    "knapsack": lambda group: Contender(s.beta_mean(), allocate=_knapsack, most=MOST),
    "vip": lambda group: Contender(s.beta_mean(), allocate=_vip, most=MOST),
    "cures": lambda group: Contender(s.cures()),
    "cures-allocated": lambda group: Contender(s.cures(), allocate=_by_deviation, most=MOST),
    "lilo": lambda group: Contender(s.lilo()),
    "gcs": lambda group: Contender(s.gcs(), predict=outcome_of_average),
    "variance-ema": lambda group: Contender(s.variance_ema()),
    "prioritized-replay": lambda group: Contender(s.prioritized_replay()),
    "learning-progress": lambda group: Contender(s.learning_progress(), predict=outcome_of_average),
    "lppo": lambda group: Contender(s.lppo(late=True), predict=outcome_of_average),
    "history-resampling": lambda group: Contender(s.history_resampling()),
    "history-resampling-forever": lambda group: Contender(
        s.history_resampling("forever", strict=False)
    ),
    "dynamic-sampling": lambda group: Contender(
        s.dynamic_sampling(s.uniform_epochs()), waves=WAVES
    ),
    "dynamic-sampling-dps": lambda group: Contender(s.dynamic_sampling(s.dps()), waves=WAVES),
    "greso": lambda group: Contender(s.greso(), waves=WAVES),
    "vcrl": lambda group: Contender(s.vcrl()),
    "vcrl-bank": lambda group: Contender(s.vcrl(bank=0.25)),
    "depo": lambda group: Contender(s.depo()),
    "speed": lambda group: Contender(s.speed(), screen=SCREEN, most=SCREENED),
    "static-order": lambda group: Contender(_static_order),
    "adarft": lambda group: Contender(_adarft),
    "sec": lambda group: Contender(_sec),
    "sec-levels": lambda group: Contender(_sec_levels),
}

# name -> parameters, at their defaults
STUDENTS: dict[str, Callable[[], StudentParams]] = {
    "logit-normal": students.logit_normal,
    "slow": students.slow,
    "forgetting": students.forgetting,
    "regime-shift": students.regime_shift,
    "unlocking": students.unlocking,
    "noisy-verifier": students.noisy_verifier,
    "correlated-topics": students.correlated_topics,
    "limited-lessons": students.limited_lessons,
}
