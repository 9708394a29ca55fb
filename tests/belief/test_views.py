"""What every filter says of a prompt, against float64 loops; and that draws follow what it says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dpsjax
from dpsjax import selectors
from dpsjax.belief.filter import View
from tests.oracles import beliefs as oracle
from tests.oracles.binomial import RateLoop
from tests.oracles.contrib import LogitLoop
from tests.oracles.hmm import LoopFilter
from tests.oracles.selectors import AverageLoop, BetaLoop, solve_state
from tests.selectors.play import N, as_dict, history

G, DRAWS = 4, 4000


class States:
    """The chain over solve states."""

    def __init__(self, size):
        self.size, self.part = size, selectors.track_hmm(0.7, num_states=size)
        self.loop = LoopFilter(N, np.ones((size, size)), np.full(size, 1 / size), 0.7)

    def step(self, seen):
        self.loop.step({n: solve_state(m, g, self.size) for n, (m, g) in seen.items()})

    def says(self, n):
        return oracle.of_states(self.loop.prior[n])

    def law(self, n, drawn):
        """The law of the state that a drawn rate lies in."""
        cuts = oracle.CUTS[self.size]
        counts = [np.sum((drawn >= low) & (drawn <= high)) for low, high in cuts]
        expect(counts, oracle.states_of_rates(self.loop.prior[n]), len(drawn))


class Beta:
    def __init__(self):
        self.part, self.loop = selectors.track_beta(0.7, (1.5, 0.8)), BetaLoop(N, 0.7, (1.5, 0.8))
        self.step = self.loop.step

    def says(self, n):
        return oracle.of_beta(*self.loop.counts[n], G)

    def law(self, n, drawn):
        assert stats.kstest(drawn, stats.beta(*self.loop.counts[n]).cdf).statistic < kolmogorov()


class Grid:
    def __init__(self):
        moves = (2.0, 40.0, 5.0, 3.0)
        self.part = selectors.track_solve_rate(8, moves, 0.8, 0.7)
        self.loop = RateLoop(N, 8, moves, 0.8, 0.7)
        self.step = self.loop.step

    def says(self, n):
        return oracle.of_cells(self.loop.prior(n), self.loop.rate, G)

    def law(self, n, drawn):
        cell = np.abs(drawn[:, None] - np.array(self.loop.rate)[None]).argmin(axis=1)
        np.testing.assert_allclose(drawn, np.array(self.loop.rate)[cell], atol=1e-6)
        expect(np.bincount(cell, minlength=8), self.loop.prior(n), len(drawn))


class Logit:
    def __init__(self):
        self.part, self.loop = selectors.track_logit(0.2, 0.3, 1.2), LogitLoop(N, 0.2, 0.3, 1.2)
        self.step = self.loop.step

    def says(self, n):
        return oracle.of_logit(self.loop.mean[n], self.loop.variance[n], G)

    def law(self, n, drawn):
        law = stats.norm(self.loop.mean[n], math.sqrt(self.loop.variance[n]))
        logit = np.log(drawn / (1 - drawn))
        assert stats.kstest(logit, law.cdf).statistic < kolmogorov()


class Average:
    def __init__(self):
        self.part = selectors.track_average(selectors.pass_rate, 0.8)
        self.loop = AverageLoop(N, 0.8, 0.5)

    def step(self, seen):
        self.loop.step(seen, lambda rate: rate)

    def says(self, n):
        return oracle.of_rate(self.loop.value[n], G)

    def law(self, n, drawn):
        np.testing.assert_allclose(drawn, self.loop.value[n], rtol=1e-12)


FILTERS = {
    "hmm, 2 states": lambda: States(2),
    "hmm, 3 states": lambda: States(3),
    "hmm, 5 states": lambda: States(5),
    "beta": Beta,
    "grid": Grid,
    "logit": Logit,
    "average": Average,
}


def kolmogorov():
    """The distance that a sample exceeds with the chance of 5 sigma."""
    return math.sqrt(-math.log(stats.norm.sf(5)) / 2 / DRAWS)


def expect(counts, chances, draws):
    chances = np.array(chances)
    sigma = np.sqrt(draws * chances * (1 - chances))
    assert (abs(counts - draws * chances) <= 5 * sigma + 1).all()


@pytest.mark.parametrize("name", FILTERS)
def test_rate_and_outcome(name):
    """After every step, of prompts seen and not seen; quadratures to their own accuracy."""
    case = FILTERS[name]()
    selector = selectors.chain(case.part)
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    look = jax.jit(lambda state: dpsjax.inspect(selector, state, group=G))
    state, tolerance = selector.init(N), 1e-3 if name == "logit" else 1e-10
    for seen in history():
        state = observe(state, *seen)
        case.step(as_dict(*seen))
        outlook = look(state)
        said = [case.says(n) for n in range(N)]
        np.testing.assert_allclose(outlook.rate, [rate for rate, _ in said], atol=tolerance)
        truth = np.stack([outcome for _, outcome in said], axis=1)
        np.testing.assert_allclose(outlook.outcome, truth, atol=tolerance)
        np.testing.assert_array_equal(outlook.mixed, outlook.outcome[1])


@pytest.mark.parametrize("name", FILTERS)
def test_draws_follow_the_belief(name):
    """At 5 sigma, and the noise of a prompt depends on the key and its id alone."""
    case = FILTERS[name]()
    selector = selectors.chain(case.part)
    state = selector.init(N)
    for seen in history(steps=8):
        state = dpsjax.observe(selector, state, *seen)[1]
        case.step(as_dict(*seen))
    (view,) = [belief for belief in selector.publish(state) if isinstance(belief, View)]
    ids = jnp.arange(N, dtype=jnp.int32)
    draw = jax.jit(jax.vmap(lambda key: view.sample(key, ids)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(7), DRAWS)), np.float64)
    assert (drawn >= 0).all() and (drawn <= 1).all()
    for n in (0, 1, 4, 7, N - 1):
        case.law(n, drawn[:, n])
        error = 5 * drawn[:, n].std() / math.sqrt(DRAWS) + 1e-4
        assert abs(drawn[:, n].mean() - case.says(n)[0]) < error
    if name != "average":
        centred = drawn - drawn.mean(axis=0)
        spread = np.sqrt((centred**2).mean(axis=0))
        between = (centred[:, 2] * centred[:, 3]).mean() / (spread[2] * spread[3])
        assert abs(between) < 5 / math.sqrt(DRAWS)
