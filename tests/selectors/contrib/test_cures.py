"""CurES: the released sampler, its epochs of batches, and the paper's temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import contrib
from tests.selectors.play import as_dict, close, expect_law, propose

N, B = 12, 5  # of play


def held_chances(selector, state):
    """Chances of the first place, up to a factor, from what is proposed."""
    proposal = propose(
        selectors.chain(*(part for part in released_parts())), state._replace(parts=state.parts[:3])
    )
    return np.where(proposal.eligible, np.exp(proposal.score), 0)


def released_parts():
    return selectors.track_beta(), selectors.add_deviation(), selectors.hold(4)


def test_chances_of_the_release_stay_for_an_epoch_without_repeats():
    loop = contrib.HeldLoop(N, batches=4, batch_size=B)
    selector = selectors.chain(*released_parts(), selectors.draw_softmax(1.0))
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    state, rng = selector.init(N), np.random.default_rng(0)
    for step in range(14):
        expected = loop.weights()
        close(held_chances(selector, state), expected)
        assert len(set(np.round(expected, 12))) > (step > 4)
        batch, state = select(jax.random.key(step), state)
        index = np.asarray(batch.index)
        assert (expected[index] > 0).all()
        passes = np.where(index < 6, rng.integers(0, 9, B), 0).astype(np.int32)
        seen = index, passes, np.full(B, 8, np.int32)
        state = observe(state, *seen)
        loop.step(index.tolist(), as_dict(*seen))


def test_rounds_of_one_step_share_its_chances():
    selector = selectors.cures(hold_steps=2)
    state, taken = selector.init(N), []
    for number in range(2):  # two rounds of a step
        batch, state = dpsjax.select(selector, jax.random.key(number), state, B)
        taken += batch.index.tolist()
        _, state = dpsjax.observe(
            selector, state, batch.index, np.full(B, 3), np.full(B, 4), advance=False
        )
    assert len(set(taken)) == 2 * B
    assert int(state.parts[2].step) == 0 and not bool(state.parts[2].stale)


def test_the_release_hardly_tells_prompts_apart():
    """By a few thousandths, where one temperature of 0.1 tells them by a factor."""
    chance = {}
    for name, selector in (("code", selectors.cures()), ("paper", selectors.cures(0.1))):
        state, seen = selector.init(2), (np.arange(2), np.array([4, 8]), np.array([8, 8]))
        _, state = dpsjax.observe(selector, state, *seen)
        parts = selectors.track_beta(), selectors.add_deviation(0.1 if name == "paper" else None)
        view = selectors.chain(*parts)
        proposal = selectors.Proposal(jnp.zeros(2, jnp.float32), jnp.ones(2, bool))
        kept = state._replace(parts=state.parts[:2])
        score = view.propose(jax.random.key(0), proposal, kept)[0].score
        chance[name] = float(np.exp(score[0] - score[1]))
    assert 1 < chance["code"] < 1.01 and chance["paper"] > 3


def test_draws_of_the_paper():
    selector = selectors.cures(temperature=0.1)
    index = np.arange(5)
    passes, trials = np.array([0, 1, 4, 7, 8]), np.full(5, 8)
    _, state = dpsjax.observe(selector, selector.init(5), index, passes, trials)
    rate = (1 + passes) / 10
    expect_law(selector, state, np.exp(np.sqrt(rate * (1 - rate)) / 0.1))


@pytest.mark.parametrize("most", [9, 16])
def test_allocation_goes_by_the_deviation(most):
    selector = selectors.cures(most=most, group=8)
    index, trials = np.arange(4), np.full(4, 8)
    _, state = dpsjax.observe(selector, selector.init(4), index, np.array([0, 1, 4, 8]), trials)
    batch, _ = dpsjax.select(selector, jax.random.key(0), state, 4)
    number = dict(zip(batch.index.tolist(), batch.trials.tolist(), strict=True))
    assert sum(number.values()) == 32 and max(number.values()) <= most
    rate = np.array([0.1, 0.2, 0.5, 0.9])
    share = 1 + 28 * np.sqrt(rate * (1 - rate)) / np.sqrt(rate * (1 - rate)).sum()
    if most == 16:
        assert all(abs(number[n] - share[n]) < 1 for n in range(4))
    assert number[2] == min(max(number.values()), most)
