"""DPS's score for every partition and prior, and the law of its candidates, against loops."""

import jax
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import selectors as oracle
from tests.oracles.hmm import LoopFilter
from tests.selectors.play import N, close, expect_law, follow

MATRIX = np.array([[2.0, 1.0, 0.5], [1.0, 3.0, 0.0], [0.5, 1.0, 2.0]])


def counts(name, size):
    to, source = np.indices((size, size))
    return {
        "uniform": np.ones((size, size)),
        "progress": 1 - 0.5 * (to < source),
        "stability": 0.5 + 0.5 * (to == source),
        "local": (abs(to - source) < 2) * 1.0,
    }[name]


def follow_dps(selector, alpha, pi, decay, weights, entropy=0.0):
    size = len(weights)
    loop = LoopFilter(N, alpha, pi, decay)

    def step(seen):
        loop.step({n: oracle.solve_state(m, g, size) for n, (m, g) in seen.items()})

    def check(proposal):
        close(proposal.score, [oracle.state_score(p, weights, entropy) for p in loop.prior])

    follow(selector, step, check)


@pytest.mark.parametrize("prior", ["uniform", "progress", "stability", "local"])
@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_dps(size, prior):
    partial = [0, 1] if size == 2 else [0, *[1] * (size - 2), 0]
    selector = selectors.dps(0.7, prior, num_states=size)
    follow_dps(selector, counts(prior, size), np.full(size, 1 / size), 0.7, partial)


def test_dps_with_entropy_and_a_weight_for_each_state():
    weights = (0.1, 0.5, 1.0, 0.5, 0.0)
    selector = selectors.dps(0.5, num_states=5, target=weights, entropy=0.2)
    follow_dps(selector, np.ones((5, 5)), np.full(5, 0.2), 0.5, weights, 0.2)
    assert selectors.middle_state(7) == (0, 0, 0, 1, 0, 0, 0)


def test_dps_from_a_matrix_and_a_first_belief():
    pi = (0.2, 0.7, 0.1)
    selector = selectors.dps(0.3, MATRIX, pi)
    follow_dps(selector, MATRIX, pi, 0.3, (0, 1, 0))


def test_a_candidate_pool_is_a_fair_subset():
    """The best of 4 candidates of 12: the k-th best is drawn with its hypergeometric chance."""
    selector = selectors.dps(candidates=4)
    state = selector.init(N)
    draws = 6000
    pick = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, 4)[0].index))
    index = np.asarray(pick(jax.random.split(jax.random.key(0), draws)))
    share = np.bincount(index.ravel(), minlength=N) / draws
    assert (abs(share - 4 / N) < 5 * np.sqrt(4 / N * (1 - 4 / N) / draws)).all()
    together = np.mean([{0, 1} <= set(row) for row in index.tolist()])
    pairs = 4 * 3 / (N * (N - 1))
    assert abs(together - pairs) < 5 * np.sqrt(pairs * (1 - pairs) / draws)


def test_a_power_of_the_score_is_drawn_in_proportion():
    selector = selectors.dps(power=2.0)
    index, passes = np.arange(5), np.array([0, 1, 4, 7, 8])
    _, state = dpsjax.observe(selector, selector.init(6), index, passes, np.full(5, 8))
    loop = LoopFilter(6, np.ones((3, 3)), np.full(3, 1 / 3), 0.5)
    loop.step({n: oracle.solve_state(m, 8, 3) for n, m in enumerate(passes.tolist())})
    expect_law(selector, state, [p[1] ** 2 for p in loop.prior])
