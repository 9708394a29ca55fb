from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsjax.grpo.advantages import centered, group_normalized, leave_one_out
from tests.oracles import grpo as oracle

KINDS = [
    (group_normalized, "normalized"),
    (centered, "centered"),
    (leave_one_out, "leave_one_out"),
]
everywhere = pytest.mark.parametrize(("function", "kind"), KINDS, ids=[k for _, k in KINDS])


def random_groups(dtype):
    rng = np.random.default_rng(0)
    rewards = rng.choice([0.0, 0.1, 1.0], size=(64, 8)).astype(dtype)
    rewards[:8] = rewards[:8, :1]  # no variance
    valid = rng.random((64, 8)) < 0.8
    valid[8:10] = False
    valid[10:12] = np.arange(8) == 3
    valid[12:20] = True
    return rewards, valid


@everywhere
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_matches_the_loop(function, kind, dtype, tolerance):
    rewards, valid = random_groups(dtype)
    expected, informative = oracle.advantages(rewards, valid, kind)
    got = function(jnp.asarray(rewards), jnp.asarray(valid))
    assert got.values.dtype == dtype
    # float32 rounds the reward 0.1 itself, so the bound is relative to the largest advantage.
    np.testing.assert_allclose(got.values, expected, atol=tolerance * 4, rtol=0)
    np.testing.assert_array_equal(got.informative, informative)
    assert 0 < informative.sum() < len(informative)


@everywhere
def test_groups_without_variance_give_exactly_zero(function, kind):
    # 0.1 summed eight times and divided by eight is not 0.1 in float32 for every order.
    rewards = jnp.stack([jnp.full(7, r, jnp.float32) for r in (0.1, 0.3, 1.0, 0.7, 1e-3)])
    got = function(rewards, jnp.ones((5, 7), bool))
    assert not np.any(got.values)
    assert not np.any(got.informative)


@everywhere
def test_invalid_rollouts_are_never_read(function, kind):
    rewards, valid = random_groups(np.float32)
    clean = function(jnp.asarray(rewards), jnp.asarray(valid))
    for garbage in (np.nan, np.inf, 7.0):
        dirty = np.where(valid, rewards, np.float32(garbage))
        got = function(jnp.asarray(dirty), jnp.asarray(valid))
        np.testing.assert_array_equal(got.values, clean.values)
        np.testing.assert_array_equal(got.informative, clean.informative)
    assert not np.any(np.asarray(clean.values)[~valid])


@everywhere
def test_eager_jit_and_vmap_agree(function, kind):
    rewards, valid = map(jnp.asarray, random_groups(np.float32))
    eager = function(rewards, valid)
    jitted = jax.jit(function)(rewards, valid)
    split = [x.reshape(4, 16, 8) for x in (rewards, valid)]
    mapped = jax.vmap(function)(*split).values.reshape(64, 8)
    # XLA may fuse a division into a reciprocal product: one rounding.
    np.testing.assert_allclose(eager.values, jitted.values, atol=5e-7)
    np.testing.assert_allclose(eager.values, mapped, atol=5e-7)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=6, max_size=6))
def test_sum_to_zero_and_keep_the_order_of_rewards(rewards):
    row = jnp.array([rewards], jnp.float32)
    every = jnp.ones_like(row, dtype=bool)
    for function, _ in KINDS:
        values = np.asarray(function(row, every).values[0])
        assert abs(values.sum()) < 1e-5
        order = np.argsort(rewards, kind="stable")
        assert np.all(np.diff(values[order]) >= -1e-6)


def test_epsilon_is_added_to_the_deviation():
    rewards = jnp.array([[0.0, 1.0]], jnp.float64)
    got = partial(group_normalized, epsilon=0.5)(rewards, jnp.ones((1, 2), bool))
    np.testing.assert_allclose(got.values, [[-0.5, 0.5]] / (np.sqrt(0.5) + 0.5), rtol=1e-12)
