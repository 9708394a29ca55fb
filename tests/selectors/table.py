"""Every recipe of the catalogue, and chains that no recipe makes; each inherits every contract."""

import numpy as np

from dpsjax import selectors as s
from tests.selectors import own


def data(num_prompts):
    """What is known of made-up prompts: all of one difficulty, so that they are equal at first."""
    ids = np.arange(num_prompts, dtype=np.int32)
    # Each row has the same eighths in its own order and signs: equal in length to the last bit.
    rng = np.random.default_rng(0)
    eighths = rng.permuted(np.tile([1, 2, 3, 5, 8], (num_prompts, 1)), axis=1) / 8
    return {
        "source": ids % 2,
        "difficulty": np.zeros(num_prompts, np.float32),
        "features": eighths * rng.choice([-1, 1], eighths.shape),
    }


RECIPES = {name: entry.build for name, entry in s.catalogue().items()}

CHAINS = {
    "dps, entropy": lambda: s.dps(decay=0.7, entropy=0.05),
    "dps, 2 states": lambda: s.dps(num_states=2, prior_alpha="stability"),
    "dps, 5 states": lambda: s.dps(num_states=5, prior_alpha="local", target=s.middle_state(5)),
    "dps, 7 states": lambda: s.dps(num_states=7, prior_alpha="progress"),
    "dps, a matrix": lambda: s.dps(
        prior_alpha=((2.0, 1.0, 0.5), (1.0, 3.0, 0.0), (0.5, 1.0, 2.0)), prior_pi=(0.2, 0.7, 0.1)
    ),
    "dps, candidates": lambda: s.dps(candidates=24),
    "dps, proportional": lambda: s.dps(power=1.0),
    "dps, mixed groups": lambda: s.chain(s.dps(), s.accept_mixed()),
    "dps-binomial, cool": lambda: s.chain(s.dps_binomial(group=4), s.cool_down(2, strict=False)),
    "mopps, band": lambda: s.mopps(1.0, band=(0.3, 0.7), candidates=24, forget_unseen=True),
    "thompson of a chain": lambda: s.chain(s.track_hmm(), s.add_thompson()),
    "thompson of a grid": lambda: s.chain(s.track_solve_rate(), s.add_thompson()),
    "logit": lambda: s.chain(s.track_logit(), s.add_mixed_prob(4), s.draw_softmax(0.1)),
    "average": lambda: s.chain(s.track_average(s.pass_rate), s.add_average()),
    "mix": lambda: s.chain(s.dps(), s.mix(s.uniform(), 0.25)),
    "freeze": lambda: s.freeze(s.beta_mean()),
    "schedule": lambda: s.chain(s.schedule(s.uniform(), s.beta_mean(), 2)),
    "stratify": lambda: s.chain(s.beta_mean(), s.stratify((1, 1))),
    "cool-down": lambda: s.chain(s.beta_mean(), s.cool_down(2)),
    "cool-down, soft": lambda: s.chain(s.dps(), s.cool_down(9, strict=False)),
    "revisit": lambda: s.chain(s.dps(), s.revisit(2, 0.25)),
    "arcus, paced": lambda: s.arcus(group=4, paced=True),
    "cures, the paper's": lambda: s.cures(0.1, hold_steps=2, most=8, group=4),
    "greso, strict": lambda: s.greso(strict=True),
    "history-resampling, forever": lambda: s.history_resampling("forever", 2, strict=True),
    "history-resampling, this epoch": lambda: s.history_resampling("this_epoch"),
    "knapsack of any inner": lambda: s.knapsack(0, 8, group=4, inner=s.uniform()),
    "lppo of dps": lambda: s.lppo(inner=s.dps()),
    "prioritized-replay, by value": lambda: s.prioritized_replay(0.5, by_rank=False),
    "vcrl, a bank": lambda: s.vcrl(0.3, bank=0.25),
    "all at once": lambda: s.chain(
        s.schedule(
            s.uniform_epochs(),
            s.chain(s.mopps(), s.stratify((2, 1)), s.cool_down(1, strict=False)),
            2,
        ),
        s.revisit(1, 0.25),
        s.mix(s.uniform(), 0.25),
        s.accept_mixed(),
    ),
}

OWN = {
    "own: knowledge gradient": lambda: s.chain(
        s.track_hmm(), own.NAMES["add_knowledge_gradient"](4, samples=3)
    ),
    "own: difficulty": lambda: s.chain(own.NAMES["track_difficulty"](), s.add_mixed_prob(4)),
    "own: in flight": lambda: s.chain(own.NAMES["in_flight"]()),
}

SELECTORS = RECIPES | CHAINS | OWN

# They learn of each group by itself, so that two groups of four are not one of eight.
BY_GROUP = {"sec"}

# The costly contracts (those that compile the whole round once more) run by default for these,
# which between them use every kind of part; else they are marked slow.
REPRESENTATIVE = {
    "uniform",
    "dps",
    "mopps",
    "history-resampling",
    "depo",
    "arcus",
    "cures",
    "greso",
    "sec",
    "prioritized-replay",
    "stratify",
    "all at once",
    *OWN,
} & set(SELECTORS)

# Fewer for the contracts that hold of any pure function: each row compiles the round anew.
FEW = REPRESENTATIVE - {
    "arcus",
    "cures",
    "stratify",
    "all at once",
    "own: knowledge gradient",
    "own: in flight",
}

# Rows whose every contract is marked slow: recipes and chains with other settings, of parts that
# the rows left have between them. (Seven states alone take half a minute to compile.)
SLOW = set(CHAINS) - REPRESENTATIVE - {"logit", "average", "freeze", "thompson of a chain"}
