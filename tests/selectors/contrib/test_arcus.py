"""ARCUS: its filter, score, draw and paced target against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors.contrib import arcus
from tests.oracles import contrib
from tests.selectors.play import N, as_dict, close, expect_law, follow, history, in_rounds, propose


@pytest.mark.parametrize("refit", [8, 100, None])
def test_filter_and_score(refit):
    """Prompts 10 and 11 are never seen; they get the moments of the others."""
    loop = contrib.ArcLoop(N, 0.1, refit=refit or np.inf)
    part = selectors.chain(selectors.track_arc(refit=refit), selectors.add_arc_nearness(0.6, 6))

    def check(proposal):
        truth = zip(loop.mean, loop.variance, strict=True)
        close(proposal.score, [contrib.arc_log_score(m, v, 0.6, 6) for m, v in truth], 1e-8)

    follow(part, loop.step, check)


def test_drift_and_noise_adapt_once_a_step():
    """However many rounds it has, as long as no prompt comes twice in it."""
    selector = selectors.chain(selectors.track_arc(refit=8))
    whole = parts = selector.init(N)
    for seen in history():
        _, whole = dpsjax.observe(selector, whole, *seen)
        parts = in_rounds(selector, seen)(parts)
        jax.tree.map(close, parts, whole)


def test_draw():
    seen = next(history())
    loop = contrib.ArcLoop(N, 0.1)
    loop.step(as_dict(*seen))
    scores = zip(loop.mean, loop.variance, strict=True)
    weights = [np.exp(contrib.arc_log_score(m, v, np.pi / 4, 8) / 0.3) for m, v in scores]
    selector = selectors.arcus()
    expect_law(selector, dpsjax.observe(selector, selector.init(N), *seen)[1], weights)


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_target_moves_after_the_warm_up(rounds):
    """Once a step, whatever the number of draws in it."""
    group, batch, warm_up = 6, 4, 2
    part = selectors.add_paced_arc_nearness(group=group, warm_up=warm_up)
    selector = selectors.chain(selectors.track_arc(), part)
    choose = jax.jit(lambda key, state: dpsjax.select(selector, key, state, batch)[1])
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    loop, state, expected = contrib.ArcLoop(N, 0.1), selector.init(N), np.pi / 4
    for number, seen in enumerate(history()):
        for _ in range(rounds):
            state = choose(jax.random.key(number), state)
        if number >= warm_up:
            expected = contrib.arc_paced_target(expected, loop.mean, loop.variance, group)
        close(state.parts[1].target, expected, 1e-8)
        state = observe(state, *seen)
        loop.step(as_dict(*seen))
    assert abs(expected - np.pi / 4) > 0.01


def test_log_score_is_finite_everywhere():
    mean = jnp.linspace(0, np.pi / 2, 50)
    for variance in (0.0, 1e-6, 0.2, 10.0):
        score = arcus.arc_log_score(mean, jnp.full(50, variance), 0.3, 8)
        assert np.isfinite(score).all()


def test_what_it_believes_is_a_rate():
    """A prompt that always passes is believed to pass; the score is over arc lengths alone."""
    selector = selectors.arcus()
    state = selector.init(3)
    for _ in range(5):
        seen = np.array([0, 1]), np.array([8, 0]), np.array([8, 8])
        _, state = dpsjax.observe(selector, state, *seen)
    rate = np.asarray(dpsjax.inspect(selector, state).rate)
    assert rate[0] > 0.95 and rate[1] < 0.05 and 0.3 < rate[2] < 0.7
    wrong = selectors.chain(selectors.track_logit(), selectors.add_arc_nearness())
    with pytest.raises(ValueError, match="put track_arc before it"):
        propose(wrong, wrong.init(N))
