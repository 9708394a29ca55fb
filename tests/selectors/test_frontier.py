"""Frontier: the shared model against a loop, the rests between visits, and prompts that join."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors.frontier import FirmView
from dpsjax.selectors.score import from_view
from tests.oracles.frontier import DifficultyLoop
from tests.selectors.play import B, N, close, follow, history, in_rounds

FEATURES = np.random.default_rng(3).normal(size=(N, 3))
DATA = {"features": FEATURES}


def mixed(a, b, group):
    """Chance of a mixed group under Beta(a, b), by enumeration of the rollouts."""
    none = every = 1.0
    for i in range(group):
        none *= (b + i) / (a + b + i)
        every *= (a + i) / (a + b + i)
    return 1 - none - every


@pytest.mark.parametrize(("strength", "decay", "memory"), [(8.0, 0.15, 0.9), (2.0, 0.5, 0.99)])
def test_model_and_counts(strength, decay, memory):
    """The calibrated belief is what others see, the firm one what the draw goes by."""
    loop = DifficultyLoop(FEATURES, strength, decay, memory, 1.0)
    model = selectors.track_difficulty(strength, decay, memory)
    firm = from_view(lambda view, key, ids: view.mixed(8), FirmView, "test", "track_difficulty")

    def check(proposal):
        calibrated = np.array([mixed(*loop.counts(row), 8) for row in range(N)])
        expected = calibrated + [mixed(*loop.counts(row, strength), 8) for row in range(N)]
        close(proposal.score, expected, 1e-9)

    follow(selectors.chain(model, selectors.add_mixed_prob(8), firm), loop.step, check, DATA)


def test_rounds_of_a_step_are_one_step():
    selector = selectors.frontier()
    whole = parts = selector.init(N, DATA)
    for seen in history():
        _, whole = dpsjax.observe(selector, whole, *seen)
        parts = in_rounds(selector, seen)(parts)
        jax.tree.map(close, parts, whole)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_visits_are_spaced(share):
    """No prompt comes again within its rest; with 1 each comes once in a pass."""
    selector = selectors.chain(selectors.space_out(share))
    size, batch = 24, 4
    choose = jax.jit(lambda key, state: dpsjax.select(selector, key, state, batch))
    state, last, gaps = selector.init(size), {}, []
    for step in range(30):
        drawn, state = choose(jax.random.key(step), state)
        for row in drawn.index.tolist():
            gaps.append(step - last.get(row, -size))
            last[row] = step
        ones = jnp.ones(batch, jnp.int32)
        _, state = dpsjax.observe(selector, state, drawn.index, ones, 2 * ones)
    assert min(gaps) == max(int(share * size / batch), 1)
    if share == 1:
        assert max(gap for gap in gaps if gap < size) == size // batch


def test_a_prompt_that_joins_is_known_by_its_features():
    selector = selectors.frontier()
    easy = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)[:, None]
    state = selectors.reserve(selector, N - 2, N, {"features": easy})
    index = np.arange(B, dtype=np.int32)
    trials = np.full(B, 8, np.int32)
    for _ in range(20):
        _, state = dpsjax.observe(selector, state, index, 8 * (1 - index % 2), trials)
    joined = {"features": np.array([[1.0], [-1.0]])}
    state = selectors.add_prompts(selector, state, np.array([N - 2, N - 1]), joined)
    rate = dpsjax.inspect(selector, state).rate
    assert rate[N - 2] > 0.8 and rate[N - 1] < 0.2
