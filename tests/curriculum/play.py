"""A trainer that can be killed anywhere: its rewards depend on the prompt and the step alone."""

import jax
import numpy as np

import dpsjax

N, B, G = 24, 4, 4


def rewards_of(index, step, group=G):
    """float[B, G]: a prompt's rollouts pass more often the lower its id, and the later it is."""
    rng = np.random.default_rng(step)
    dice = rng.random((N, group))[np.asarray(index)]
    return (dice < (np.asarray(index)[:, None] + step) % N / N).astype(np.float32)


def flat(index, rewards):
    return np.repeat(index, rewards.shape[1]), rewards.reshape(-1)


def in_parts(curriculum, index, rewards, seed=0):
    """Tell single rollouts in random order, in three calls."""
    rows = np.random.default_rng(seed).permutation(rewards.size)
    ids, values = flat(index, rewards)
    for part in np.array_split(rows, 3):
        curriculum.tell(ids[part], values[part])


def train(curriculum, steps, start=0):
    """A plain loop; what was asked."""
    asked = []
    for step in range(start, steps):
        index = curriculum.ask()
        asked.append(index.tolist())
        curriculum.tell(index, rewards_of(index, step))
    return asked


def same_state(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    np.testing.assert_equal(one.metrics(), other.metrics())
    np.testing.assert_equal(one.table(), other.table())


def by_hand(selector, steps, data=None):
    """The same with the pure functions; what was asked, and the state."""
    state, asked = selector.init(N, data), []
    key = jax.random.key(0, impl="threefry2x32")
    for step in range(steps):
        batch, state = dpsjax.select(selector, jax.random.fold_in(key, step), state, B)
        index = np.asarray(batch.index)
        passes = rewards_of(index, step).sum(1).astype(np.int32)
        seen = index, passes, np.full(B, G, np.int32)
        _, state = dpsjax.observe(selector, state, *seen, age=np.zeros(B, np.int32))
        asked.append(index.tolist())
    return asked, state
