"""Pools that grow and shrink, what is known of prompts, and which leaves are theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors.pool import SHARED, column, prompt_axes

N = 24


def ints(values):
    return jnp.asarray(values, jnp.int32)


def test_prompts_can_join_and_leave_a_running_pool():
    selector = selectors.chain(selectors.beta_mean(), selectors.cool_down(1))
    state = selectors.reserve(selector, 10, N)
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, 12)[0].index)
    assert sorted(select(jax.random.key(0), state).tolist()) == [-1, -1, *range(10)]
    seen = ints([0, 1]), ints([4, 4]), ints([4, 4])
    _, state = dpsjax.observe(selector, state, *seen)
    state = selectors.remove_prompts(state, ints([3, -1]))
    state = selectors.add_prompts(selector, state, ints([1, 20, -1]))
    drawn = set(select(jax.random.key(0), state).tolist()) - {-1}
    assert drawn == {1, 2, 4, 5, 6, 7, 8, 9, 20}  # 0 is cooling down, 1 is new in its row
    excess = np.asarray(state.parts[0].parts[0].excess)
    assert excess[:, 0].tolist() == [4, 0] and excess[:, 1].tolist() == [0, 0]
    assert int(state.parts[0].parts[0].step) == 1
    with pytest.raises(ValueError, match="index must lie in"):
        selectors.add_prompts(selector, state, ints([N]))
    with pytest.raises(ValueError, match="num_prompts"):
        selectors.reserve(selector, N + 1, N)


def test_new_prompts_bring_what_is_known_of_them():
    selector = selectors.chain(selectors.stratify((1, 1)))
    known = {"source": np.zeros(N, np.int32)}
    state = selectors.reserve(selector, 4, N, known)
    state = selectors.add_prompts(selector, state, ints([9, -1, 7]), {"source": ints([1, 0, 1])})
    assert np.flatnonzero(state.parts[0]).tolist() == [7, 9]
    for seed in range(5):
        index = dpsjax.select(selector, jax.random.key(seed), state, 4)[0].index
        assert {7, 9} <= set(index.tolist())  # half of the batch is of source 1
    with pytest.raises(ValueError, match="stratify needs 'source' of every prompt"):
        selectors.add_prompts(selector, state, ints([9]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "needs 'difficulty' of every prompt"),
        ({"topic": np.zeros(6)}, "needs 'difficulty' of every prompt"),
        ({"difficulty": np.zeros(5)}, r"difficulty must have shape \(6,\)"),
        ({"difficulty": 3.0}, r"difficulty must have shape \(6,\)"),
        ({"difficulty": [0, 1, 2, 0, 1, 9]}, r"difficulty must lie in \[0, 3\)"),
        ({"difficulty": [0, 1, 2, 0, 1, -1]}, r"difficulty must lie in \[0, 3\)"),
        ({"difficulty": [0, 1, 2, 0, 1, np.nan]}, "must be finite"),
    ],
)
def test_what_is_known_must_fit_the_pool(data, words):
    with pytest.raises(ValueError, match=words):
        column(data, "difficulty", 6, jnp.int32, "this part", below=3)


def table(num_prompts, data=None):
    """Leaves in which another axis is as long as the pool, and one whose prompts come first."""
    return {
        "of_the_pool": jnp.zeros(N),
        "cells": jnp.zeros((N, num_prompts)),
        "features": jnp.zeros((num_prompts, N)),
        "square": jnp.zeros((N, N)),
        "clock": jnp.zeros((), jnp.int32),
    }


def test_leaves_of_prompts_are_found_not_guessed():
    """Also where the pool has as many prompts as a belief has cells, or features columns."""
    part = selectors.Selector(init=table)
    selector = selectors.chain(part, selectors.track_solve_rate(cells=16))
    axes = prompt_axes(selector)
    assert axes.active == 0
    assert axes.parts[0] == {
        "of_the_pool": SHARED, "cells": 1, "features": 0, "square": SHARED, "clock": SHARED
    }  # fmt: skip
    assert axes.parts[1].posterior == 1 and axes.parts[1].start == SHARED
    state = selector.init(N)
    state = state._replace(parts=(jax.tree.map(jnp.ones_like, state.parts[0]), state.parts[1]))
    after = selectors.add_prompts(selector, state, ints([3])).parts[0]
    assert (after["of_the_pool"] == 1).all() and (after["square"] == 1).all()
    assert (after["cells"][:, 3] == 0).all() and after["cells"].sum() == N * (N - 1)
    assert (after["features"][3] == 0).all() and after["features"].sum() == N * (N - 1)


def test_a_pool_of_as_many_prompts_as_cells_grows():
    selector = selectors.chain(selectors.track_solve_rate(cells=16), selectors.add_mixed_prob(4))
    state = selector.init(16)
    for _ in range(3):
        seen = ints([2, 5]), ints([0, 4]), ints([4, 4])
        _, state = dpsjax.observe(selector, state, *seen)
    after = selectors.add_prompts(selector, state, ints([5])).parts[0]
    np.testing.assert_array_equal(after.start, state.parts[0].start)
    np.testing.assert_array_equal(after.moves, state.parts[0].moves)
    np.testing.assert_array_equal(after.posterior[:, 2], state.parts[0].posterior[:, 2])
    np.testing.assert_array_equal(after.posterior[:, 5], np.full(16, 1 / 16))
    assert not after.seen[5] and after.seen[2]


def test_reserved_rows_have_no_rollouts():
    selector = selectors.dps()
    state = selectors.reserve(selector, 2, 5)
    with pytest.raises(ValueError, match=r"rows that hold no prompt: \[3\]; see add_prompts"):
        dpsjax.observe(selector, state, [0, 3, -1], [1, 1, 1], [4, 4, 4])
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    feedback, dropped = observe(state, ints([0, 3]), ints([1, 1]), ints([4, 4]))
    assert feedback.accept.tolist() == [True, False]
    _, alone = observe(state, ints([0, -1]), ints([1, 0]), ints([4, 0]))
    jax.tree.map(np.testing.assert_array_equal, dropped, alone)
