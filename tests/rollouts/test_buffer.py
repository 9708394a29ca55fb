"""The buffer that turns vetoes into full batches, and loops inside ``jit`` that fill it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import rollouts, selectors

N, B, G = 24, 4, 4


def ints(values):
    return jnp.asarray(values, jnp.int32)


def test_buffer_loses_and_repeats_nothing():
    rng = np.random.default_rng(0)
    push = jax.jit(rollouts.push)
    take = jax.jit(lambda buffer: rollouts.take(buffer, B))
    buffer = rollouts.init_buffer({"id": jax.ShapeDtypeStruct((2,), jnp.int32)}, 2 * B - 1)
    pushed, taken, number = [], [], 0
    for _ in range(50):
        while int(buffer.size) < B:
            accept = rng.random(B) < rng.choice([0.1, 0.5, 1.0])
            ids = np.arange(number, number + B)
            number += B
            pushed += ids[accept].tolist()
            groups = {"id": jnp.stack([ints(ids), ints(-ids)], axis=1)}
            buffer = push(buffer, groups, jnp.asarray(accept))
        groups, valid, buffer = take(buffer)
        assert valid.all()
        assert (groups["id"][:, 0] == -groups["id"][:, 1]).all()
        taken += groups["id"][:, 0].tolist()
    assert taken == pushed[: len(taken)] and len(pushed) - len(taken) == int(buffer.size)
    assert int(buffer.lost) == 0


def test_buffer_that_is_too_small_says_so():
    buffer = rollouts.init_buffer(jax.ShapeDtypeStruct((), jnp.int32), 5)
    buffer = rollouts.push(buffer, ints(range(4)), jnp.ones(4, bool))
    with pytest.raises(ValueError, match="2 \\* batch_size - 1"):
        rollouts.push(buffer, ints(range(4)), jnp.ones(4, bool))
    over = jax.jit(rollouts.push)(buffer, ints(range(10, 14)), jnp.ones(4, bool))
    assert int(over.lost) == 3 and over.groups.tolist() == [0, 1, 2, 3, 10]
    with pytest.raises(ValueError, match="batch_size must lie in"):
        rollouts.take(buffer, 6)


def rollout(key, batch):
    """Prompt n passes with probability n/N; a group is its prompt and a number of its own."""
    draws = jax.random.uniform(key, (B, G), jnp.float32)
    chance = (batch.index.astype(jnp.float32) / N)[:, None]
    passes = (draws < chance).sum(axis=1, dtype=jnp.int32)
    mark = jax.random.randint(key, (B,), 0, 2**30, jnp.int32)
    return passes, jnp.full(B, G, jnp.int32), (batch.index, passes, mark)


@pytest.mark.parametrize("max_rounds", [None, 1])
def test_fill_until_full_or_capped(max_rounds):
    selector = selectors.chain(selectors.uniform_epochs(), selectors.accept_mixed())
    group = (jax.ShapeDtypeStruct((), jnp.int32),) * 3

    @jax.jit
    def step(key, state, buffer):
        return selectors.fill(selector, key, state, buffer, B, rollout, max_rounds)

    state, buffer = selector.init(N), rollouts.init_buffer(group, 2 * B - 1)
    marks, fills, rounds_made = [], [], 0
    for t in range(12):
        (index, passes, mark), valid, rounds, state, buffer = step(
            jax.random.fold_in(jax.random.key(0), t), state, buffer
        )
        passes, valid = np.asarray(passes), np.asarray(valid)
        assert ((passes > 0) & (passes < G))[valid].all()
        marks += np.asarray(mark)[valid].tolist()
        fills.append(valid.sum())
        rounds_made += int(rounds)
        assert max_rounds is None or rounds <= max_rounds
        assert (np.asarray(index)[~valid] == 0).all()
    assert len(set(marks)) == len(marks)
    assert all(n == B for n in fills) == (max_rounds is None)
    visits = state.parts[0].parts[0].times
    assert int(visits.sum()) == rounds_made * B  # every rollout was learned from
