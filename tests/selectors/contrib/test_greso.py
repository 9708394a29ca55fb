"""GRESO: streaks, probabilities that move once a step, and epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import contrib
from tests.selectors.play import B, N, as_dict, close, history, in_rounds, propose


@pytest.mark.parametrize("rounds", [1, 2])
def test_streaks_and_probabilities(rounds):
    loop = contrib.StreakLoop(N)
    selector = selectors.chain(selectors.skip_streaks())
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    state, epochs = selector.init(N), []
    for step, seen in enumerate(history()):
        _, state = select(jax.random.key(step), state)
        epochs.append(int(state.parts[0].epoch))
        if rounds == 1:
            _, state = observe(state, *seen)
            loop.step([as_dict(*seen)], epochs[-1])
        else:
            state = in_rounds(selector, seen)(state)
            cut = len(seen[0]) // 2
            halves = [tuple(array[:cut] for array in seen), tuple(array[cut:] for array in seen)]
            loop.step([as_dict(*half) for half in halves], epochs[-1])
        close(state.parts[0].keep, [loop.easy, loop.hard])
        base = np.where(np.asarray(state.parts[0].streak) > 0, loop.easy, loop.hard)
        chance = np.maximum(base ** np.abs(state.parts[0].streak), 0.01)
        close(chance, [loop.chance(n) for n in range(N)])
    assert epochs[0] == 1 and epochs[-1] > 3 and loop.easy != 0.5


def test_a_new_epoch_keeps_prompts_by_their_chance():
    """At 5 sigma; every other prompt failed once, twice, ... so that the chances differ."""
    part = selectors.skip_streaks(strict=True)
    streak = jnp.array([0, 1, -1, 2, -2, 3, -3, 4, 0, 0, 0, 0], jnp.int32)
    keep, draws = np.array([0.8, 0.6]), 4000
    state = part.init(N)._replace(streak=streak, keep=jnp.asarray(keep))
    plain = propose(selectors.chain(), selectors.chain().init(N))
    kept = jax.jit(jax.vmap(lambda key: part.propose(key, plain, state)[0].eligible))(
        jax.random.split(jax.random.key(0), draws)
    )
    length = np.abs(streak)
    chance = np.where(np.asarray(streak) > 0, keep[0] ** length, keep[1] ** length)
    sigma = np.sqrt(chance * (1 - chance) / draws)
    assert (abs(np.asarray(kept).mean(axis=0) - chance) <= 5 * sigma).all()


def walk(outcome, steps, strict=False):
    """Batches, and the epoch of each."""
    selector = selectors.greso(strict=strict)
    state, batches = selector.init(N), []
    for step in range(steps):
        batch, state = dpsjax.select(selector, jax.random.key(step), state, 4)
        index = np.asarray(batch.index)
        seen = index, np.where(index >= 0, outcome(index), 0), np.where(index >= 0, 8, 0)
        _, state = dpsjax.observe(selector, state, *seen)
        batches.append((int(state.parts[0].epoch), index))
    return batches


def test_an_epoch_is_one_pass_in_random_order():
    batches = walk(lambda index: np.full(index.shape, 4), 9)
    assert [epoch for epoch, _ in batches] == [1] * 3 + [2] * 3 + [3] * 3
    passes = [np.concatenate([i for epoch, i in batches if epoch == e]) for e in (1, 2, 3)]
    assert all(sorted(one.tolist()) == list(range(N)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_hopeless_prompts_come_less_and_less():
    """Half of the pool always fails: offered as often, but rolled out more and more rarely."""
    batches = walk(lambda index: np.where(index < N // 2, 0, 4), 60)
    index = np.concatenate([index for _, index in batches[30:]])
    assert (index < N // 2).mean() < 0.25
    assert ((index < N // 2) & (index >= 0)).any()


def test_strict_pads_what_is_skipped():
    batches = walk(lambda index: np.zeros(index.shape, int), 30, strict=True)
    assert (np.concatenate([index for _, index in batches]) == -1).any()
    filled = walk(lambda index: np.zeros(index.shape, int), 30)
    assert (np.concatenate([index for _, index in filled]) >= 0).all()
