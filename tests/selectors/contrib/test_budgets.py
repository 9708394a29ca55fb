"""Recipes that divide a step's rollouts: by what is believed, and best among all splits."""

import jax
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import selectors as oracle

PASSES, TRIALS = np.array([0, 3, 6, 8]), np.full(4, 8)
RATE = (1 + PASSES) / 10  # of a Beta belief from (1, 1) after one visit


def divided(selector, most):
    """Rollouts and loss weights of prompts 0..3, all of which are drawn."""
    _, state = dpsjax.observe(selector, selector.init(4), np.arange(4), PASSES, TRIALS)
    batch, _ = dpsjax.select(selector, jax.random.key(0), state, 4)
    order = np.argsort(batch.index)
    trials = np.asarray(batch.trials)[order]
    assert trials.sum() == 4 * 5 and trials.max() <= most
    return trials, np.asarray(batch.weight)[order]


@pytest.mark.parametrize("inner", [None, selectors.uniform, selectors.mopps])
def test_knapsack_is_the_best_of_all_splits(inner):
    chosen = None if inner is None else inner()
    trials, weight = divided(selectors.knapsack(2, 9, group=5, inner=chosen), 9)
    assert trials.min() >= 2 and (weight == 1).all()
    table = [[(1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2 for n in range(10)] for p in RATE]
    total = sum(table[b][n] for b, n in enumerate(trials))
    assert abs(total - oracle.best_split(table, 20, 2, 9)) < 1e-12


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
def test_vip_is_the_best_of_all_splits_and_prompts_count_alike(estimator):
    trials, weight = divided(selectors.vip(3, 9, group=5, estimator=estimator), 9)
    share = {"rloo": lambda n: 1 / (n - 1), "dr_grpo": lambda n: (n - 1) / n**2}[estimator]
    table = [[-p * (1 - p) * share(n) if n >= 3 else 0 for n in range(10)] for p in RATE]
    total = sum(table[b][n] for b, n in enumerate(trials))
    assert abs(total - oracle.best_split(table, 20, 3, 9)) < 1e-12
    np.testing.assert_allclose(weight * trials, 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: selectors.knapsack(9, 32, group=8), "group=8 .* lowest=9"),
        (lambda: selectors.knapsack(2, 4, group=8), "group=8 .* most=4"),
        (lambda: selectors.vip(2), "lowest=2 must be at least 3"),
        (lambda: selectors.vip(1, estimator="rloo"), "lowest=1 must be at least 2"),
        (lambda: selectors.cures(most=4, group=8), "most=4 must be at least 8"),
        (lambda: selectors.speed(screen=1), "screen=1 must be at least 2"),
        (lambda: selectors.speed(rest=0), "rest=0 must be at least 1"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
