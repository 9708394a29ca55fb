"""dpsjax.hmm, and the other filters, whose numbers the selectors' parts have checked."""

import numpy as np
import pytest

from dpsjax import hmm
from dpsjax.belief import beta, ema, grid, kalman, states
from tests.inputs.wrong import Row, complaints, public

POOL = 4
INDEX, STATE = np.array([0, 3], np.int32), np.array([1, 2], np.int32)
PASSES, TRIALS = np.array([3, 8], np.int32), np.array([8, 8], np.int32)
PARAMS = hmm.params()
BELIEF = hmm.init(PARAMS, POOL)
OTHER = hmm.init(hmm.params(5), POOL)

ROWS = {
    "hmm_params.params": Row(
        hmm.params,
        {"num_states": 3, "decay": 0.5, "prior_alpha": 1.0, "prior_pi": np.full(3, 1 / 3)},
    ),
    "hmm_params.params, by name": Row(hmm.params, {"prior_alpha": "local"}),
    "hmm_params.prior_counts": Row(
        lambda prior_alpha, num_states: hmm.prior_counts(prior_alpha, num_states),
        {"prior_alpha": "local", "num_states": 3},
    ),
    "hmm.init": Row(
        hmm.init, {"params": PARAMS, "num_prompts": POOL, "counts_dtype": np.dtype("float32")}
    ),
    "hmm.update": Row(
        hmm.update,
        {"params": PARAMS, "belief": BELIEF, "index": INDEX, "state": STATE},
        also={"belief": [OTHER]},
    ),
    "hmm.prior": Row(hmm.prior, {"params": PARAMS, "belief": BELIEF}),
    "hmm.posterior": Row(hmm.posterior, {"params": PARAMS, "belief": BELIEF}),
    "hmm.alpha": Row(hmm.alpha, {"params": PARAMS, "belief": BELIEF}),
    "states.solve_state": Row(
        hmm.solve_state, {"passes": PASSES, "trials": TRIALS, "num_states": 3}
    ),
    "states.partition_state": Row(
        hmm.partition_state,
        {"passes": PASSES, "trials": TRIALS, "cuts": states.PARTITIONS[5]},
        also={"cuts": [((1, 0, True),), ((2, 3, True), (1, 3, True)), ((0.5, 1, True),)]},
    ),
    "states.partial_states": Row(states.partial_states, {"num_states": 3}),
    "states.middle_state": Row(states.middle_state, {"num_states": 3}),
    "beta.params": Row(beta.params, {"decay": 0.5, "prior": (1.0, 1.0), "forget_unseen": False}),
    "grid.params": Row(grid.params, {"moves": (1.0, 46.0, 2.5, 0.5), "decay": 0.9, "memory": 0.9}),
    "grid.rates": Row(grid.rates, {"cells": 16}),
    "beta.init": Row(beta.init, {"params": beta.params(), "num_prompts": POOL}),
    "grid.init": Row(grid.init, {"params": grid.params(), "num_prompts": POOL, "cells": 16}),
    "ema.init": Row(ema.init, {"start": 0.5, "num_prompts": POOL}),
    "kalman.init": Row(kalman.init, {"mean": 0.5, "variance": 1.0, "num_prompts": POOL}),
}
# The steps of the filters and their closed forms: the trackers of dpsjax.selectors call them, with
# what `observe` has checked and rows that they have merged; tests/belief holds them to the truth.
INNER = {
    "blocks": "in_blocks",
    "beta": "BetaView advance counts denoised_advantages expected_variance_of_rollout information "
    "informative_prob observe offset variance_of_rollout",
    "distributions": "chain outcome rate states transitions",
    "ema": "RateView observe",
    "filter": "View averaged clear_of group_outcome ordered weighted",
    "grid": "GridView advance expectation mixed_chance observe prior",
    "hmm": "advance observe",
    "hmm_params": "require_float_type",
    "kalman": "GaussianView advance expected_variance_of_rollout measure_arc measure_logit observe "
    "rate_of_arc variance",
    "noise": "hash_bits hash_uniform hash_words row_beta row_bits row_gumbel row_normal "
    "row_uniform",
    "rows": "counts gather_index ids known merge_duplicates rollout_counts scatter_index states",
    "states": "StateView merge_states pooled_state state_ranges",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


def test_every_public_name_is_covered():
    covered = {f"belief.{name.split(',')[0]}" for name in ROWS}
    inner = {f"belief.{module}.{n}" for module, names in INNER.items() for n in names.split()}
    assert public("dpsjax.belief") == covered | inner
    assert not covered & inner
