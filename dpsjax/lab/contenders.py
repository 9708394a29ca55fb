"""The names that ``dpsjax compare`` knows: selectors at their published settings, and students.

In Python no name is needed: pass a dictionary of your own selectors to
:func:`dpsjax.lab.compare.compare`. Left out are recipes that need what a simulated student has
not: difficulties or categories known in advance, entropies, or rollouts in two rounds.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dpsjax import selectors as s
from dpsjax.lab import students
from dpsjax.lab.measures import outcome_of_arc, outcome_of_average, outcome_of_logit
from dpsjax.lab.simulate import Contender
from dpsjax.lab.students import StudentParams
from dpsjax.types import Array

WAVES = 10  # most waves for one update of a selector that fills its batches; DAPO's own cap
COOL_DOWN = 12  # steps
MOST = 32  # most rollouts of one prompt, where they are allocated


def _knapsack(rate: Array, budget: int) -> Array:
    return s.knapsack(s.knapsack_value(rate, MOST), budget)


def _vip(rate: Array, budget: int) -> Array:
    return s.vip_allocate(rate, budget, lowest=3, highest=MOST)


def _by_deviation(rate: Array, budget: int) -> Array:
    return s.allocate_proportional(jnp.sqrt(rate * (1 - rate)), budget, 1)


# name -> what makes the contender, given the number of rollouts in a group
CONTENDERS: dict[str, Callable[[int], Contender]] = {
    "uniform": lambda group: Contender(s.uniform()),
    "uniform-epochs": lambda group: Contender(s.uniform_epochs()),
    "dps": lambda group: Contender(s.dps()),
    "dps-0.2": lambda group: Contender(s.dps(decay=0.2)),
    "dps-0.8": lambda group: Contender(s.dps(decay=0.8)),
    "dps-1.0": lambda group: Contender(s.dps(decay=1.0)),
    "dps-entropy": lambda group: Contender(s.dps(entropy=0.1)),
    "dps-cool": lambda group: Contender(s.chain(s.dps(), s.cool_down(COOL_DOWN))),
    "dps-proportional": lambda group: Contender(s.chain(s.dps(), s.draw_proportional())),
    "dps-7": lambda group: Contender(s.dps(num_states=7)),
    "dps-binomial": lambda group: Contender(s.dps_binomial(group=group)),
    "mopps": lambda group: Contender(s.mopps()),
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
    "dynamic-sampling": lambda group: Contender(
        s.dynamic_sampling(s.uniform_epochs()), waves=WAVES
    ),
    "dynamic-sampling-dps": lambda group: Contender(s.dynamic_sampling(s.dps()), waves=WAVES),
    "greso": lambda group: Contender(s.greso(), waves=WAVES),
    "vcrl": lambda group: Contender(s.vcrl()),
    "vcrl-bank": lambda group: Contender(s.vcrl(bank=0.25)),
    "depo": lambda group: Contender(s.depo()),
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
