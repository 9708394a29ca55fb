"""Selectors that skip, order, veto, replay or choose among categories, against loop oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors import replay
from tests.oracles import selectors as oracle
from tests.selectors.play import B, N, as_dict, close, history, propose


def test_greso_streaks_and_probabilities():
    loop = oracle.StreakLoop(N)
    selector = selectors.skip_streaks()
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selectors.chain(selector), state, *seen))
    state = selectors.chain(selector).init(N)
    for seen in history():
        _, state = observe(state, *seen)
        loop.step(as_dict(*seen))
        streak, keep = state.parts[0]
        close(keep, [loop.easy, loop.hard])
        base = np.where(np.asarray(streak) > 0, loop.easy, loop.hard)
        chance = np.maximum(base ** np.abs(streak), 0.01)
        close(chance, [loop.chance(n) for n in range(N)])
    strict = jax.jit(
        jax.vmap(
            lambda key: (
                selectors.skip_streaks(strict=True)
                .propose(
                    key, propose(selectors.chain(), selectors.chain().init(N)), state.parts[0]
                )[0]
                .eligible
            )
        )
    )
    draws = 4000
    kept = np.asarray(strict(jax.random.split(jax.random.key(0), draws))).mean(axis=0)
    sigma = np.sqrt(chance * (1 - chance) / draws)
    assert (abs(kept - chance) <= 5 * sigma).all()


def test_sec_values_and_draws():
    category = np.array([0, 1, 2] * 4, np.int32)
    selector = selectors.sec(category, 3, rate=0.4, temperature=0.5)
    value = np.zeros(3)
    state = selector.init(N)
    for seen in history():
        _, state = dpsjax.observe(selector, state, *seen)
        for c in range(3):
            sizes = [
                2 * np.sqrt(m / g * (1 - m / g))
                for n, (m, g) in as_dict(*seen).items()
                if category[n] == c
            ]
            if sizes:
                value[c] = 0.4 * np.mean(sizes) + 0.6 * value[c]
        close(state.parts[0].value, value)
    draws = 4000
    first = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, 1)[0].index[0]))(
        jax.random.split(jax.random.key(0), draws)
    )
    share = np.bincount(category[np.asarray(first)], minlength=3) / draws
    truth = np.exp(value / 0.5) / np.exp(value / 0.5).sum()
    assert (abs(share - truth) < 5 * np.sqrt(truth * (1 - truth) / draws)).all()


def test_adarft_target():
    difficulty = np.linspace(0, 100, N)
    selector = selectors.adarft(difficulty, start=30.0)
    state, target = selector.init(N), 30.0
    for seen in history():
        _, state = dpsjax.observe(selector, state, *seen)
        rates = [m / g for m, g in as_dict(*seen).values()]
        if rates:
            target = np.clip(target + 50 * np.tanh(2 * (np.mean(rates) - 0.5)), 0, 100)
        close(propose(selector, state).score, -abs(difficulty - target))


def test_vcrl_bank_draws_the_highest_averaged_variance():
    momentum, selector = 0.8, selectors.vcrl(0.0, bank=0.5, momentum=0.8)
    state, priority = selector.init(N), np.zeros(N)
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    for seen in history():
        state = observe(state, *seen)
        for n, (m, g) in as_dict(*seen).items():
            priority[n] = momentum * priority[n] + (1 - momentum) * m * (g - m) / g**2
    half = np.argsort(-priority)[:4]
    assert priority[half[-1]] > np.sort(priority)[-5]  # no tie at the cut
    draw = jax.jit(lambda key: dpsjax.select(selector, key, state, 8)[0].index)
    for number in range(3):
        assert set(half.tolist()) <= set(np.asarray(draw(jax.random.key(number))).tolist())


def test_vcrl_gate():
    passes = jnp.array([0, 1, 2, 3, 4, 8, 1, 0], jnp.int32)
    trials = jnp.array([8, 8, 8, 8, 8, 8, 3, 1], jnp.int32)
    selector = selectors.vcrl(0.7)
    accept, _ = dpsjax.observe(
        selector, selector.init(9), jnp.arange(8, dtype=jnp.int32), passes, trials
    )
    # 1 * 7 / 16 and 2 * 6 / 16 = 0.75: two of eight is enough, one of eight is not.
    assert accept.tolist() == [False, False, True, True, True, False, True, False]


@pytest.mark.parametrize("by_rank", [True, False])
def test_replay_probabilities(by_rank):
    rng = np.random.default_rng(2)
    value = rng.integers(0, 5, N) / 16
    age = rng.integers(0, 9, N)
    proposal = propose(selectors.chain(), selectors.chain().init(N))
    zero = jnp.zeros(N, jnp.int32)
    proposal = proposal.publish(selectors.AverageBelief(jnp.asarray(value), jnp.zeros(N), zero))
    proposal = proposal.publish(
        selectors.Visits(zero, jnp.asarray(age, jnp.int32), jnp.zeros(N, bool))
    )
    part = selectors.prioritize(0.3, 0.2, by_rank=by_rank)
    found = part.propose(jax.random.key(0), proposal, ())[0].score
    close(found, oracle.replay_probabilities(value, age, 0.3, 0.2, by_rank), 1e-6)


def test_ranks_leave_out_what_may_not_be_drawn():
    value = jnp.array([0.1, 0.25, 0.2, 0.2, 0.0], jnp.float64)
    eligible = jnp.array([True, False, True, True, True])
    ranks = np.asarray(replay.score_ranks(value, eligible))
    assert ranks[[0, 2, 3, 4]].tolist() == [3, 1, 1, 4]


def test_explorability_and_its_memory():
    rng = np.random.default_rng(3)
    rewards = rng.integers(0, 2, (B, 6)).astype(np.float64)
    entropies = rng.random((B, 6)) * 2
    entropies[1, 2:4] = np.nan
    selector = selectors.depo(history=2, explore=0.0)
    state = selector.init(N)
    index = jnp.arange(B, dtype=jnp.int32)
    worth = []
    for step in range(3):
        shown = np.roll(rewards, step, axis=1)
        worth.append(oracle.explorability(shown, entropies))
        passes = jnp.asarray(shown.sum(axis=1), jnp.int32)
        _, state = dpsjax.observe(
            selector,
            state,
            index,
            passes,
            jnp.full(B, 6, jnp.int32),
            rewards=jnp.asarray(shown),
            entropies=jnp.asarray(entropies),
        )
        close(propose(selector, state).score[:B], np.mean(worth[-2:], axis=0))
    assert np.isinf(propose(selector, state).score[B:]).all()
