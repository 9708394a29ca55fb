"""A batch from rewards; micro-batches: every rollout once, and evenly over the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.grpo import (
    Advantages,
    GRPOConfig,
    RolloutBatch,
    batch_rows,
    centered,
    leave_one_out,
)
from dpsjax.grpo.batch import MicroBatch, join_micro, numerator_weight, split_micro
from dpsjax.policy import Rollouts
from tests.oracles import grpo as oracle


def mini_batch(prompts, group):
    """Every token names its rollout, every prompt itself."""
    prompt = jnp.arange(prompts, dtype=jnp.int32)[:, None]
    tokens = jnp.arange(prompts * group, dtype=jnp.int32).reshape(prompts, group, 1)
    values = tokens.astype(jnp.float32)
    return MicroBatch(prompt, prompt >= 0, tokens, tokens >= 0, values, values[..., 0], values)


@pytest.mark.parametrize(
    ("prompts", "group", "sequences", "ways", "shape"),
    [
        (8, 4, None, 1, (1, 8, 4)),
        (8, 4, 16, 1, (2, 4, 4)),
        (8, 4, 16, 8, (2, 8, 2)),
        (8, 4, 8, 8, (4, 8, 1)),
        (8, 4, 8, 4, (4, 4, 2)),
        (8, 4, 2, 1, (16, 1, 2)),
        (8, 4, 4, 8, (8, 1, 4)),  # fewer sequences than devices: whole groups again
        (6, 4, 8, 4, (3, 2, 4)),  # 6 prompts are not even over 4 devices anyhow
    ],
)
def test_a_division_is_complete_and_can_be_undone(prompts, group, sequences, ways, shape):
    batch = mini_batch(prompts, group)
    parts = split_micro(batch, sequences, ways)
    assert parts.tokens.shape == (*shape, 1)
    assert all(leaf.shape[:2] == shape[:2] for leaf in jax.tree.leaves(parts))
    np.testing.assert_array_equal(
        parts.tokens // group, parts.prompt[:, :, None] + 0 * parts.tokens
    )
    np.testing.assert_array_equal(np.sort(parts.tokens.ravel()), np.arange(prompts * group))
    np.testing.assert_array_equal(join_micro(parts.tokens, (prompts, group, 1)), batch.tokens)


def test_every_device_keeps_its_rows():
    parts = split_micro(mini_batch(8, 4), 16, 4)
    home = np.asarray(parts.prompt)[..., 0] // 2  # two prompts live on each of four devices
    np.testing.assert_array_equal(home, np.tile(np.arange(4), (len(home), 1)))


B, G, T, P = 4, 3, 2, 5


@pytest.fixture
def parts():
    """Three prompts and a row of padding, with one rollout that was not scored."""
    rng = np.random.default_rng(3)
    rollouts = Rollouts(
        tokens=jnp.asarray(rng.integers(0, 9, (B, G, T)), jnp.int32),
        mask=jnp.asarray(rng.random((B, G, T)) < 0.8),
        log_probs=jnp.asarray(rng.normal(-1, 0.1, (B, G, T)), jnp.float32),
        steps=jnp.int32(T),
    )
    index = jnp.array([5, 0, 7, -1], jnp.int32)
    prompt = jnp.asarray(rng.integers(0, 9, (B, P)), jnp.int32)
    rewards = jnp.array([[1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], jnp.float32)
    valid = jnp.ones((B, G), bool).at[1, 2].set(False)
    return index, prompt, prompt > 2, rollouts, rewards, valid


@pytest.mark.parametrize(
    ("function", "kind"), [(centered, "centered"), (leave_one_out, "leave_one_out")]
)
def test_a_batch_from_rewards(parts, function, kind):
    index, prompt, prompt_mask, rollouts, rewards, valid = parts
    batch = RolloutBatch.of(
        index, prompt, prompt_mask, rollouts, rewards, valid=valid, advantages=function
    )
    counted = np.asarray(valid) & (np.asarray(index) >= 0)[:, None]
    values, informative = oracle.advantages(rewards, counted, kind)
    np.testing.assert_allclose(batch.advantages, values, atol=1e-6)
    assert batch.informative.tolist() == informative.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(batch.mask, rollouts.mask & counted[:, :, None])
    assert numerator_weight(batch).tolist() == [1, 0, 1, 0]
    for name in ("tokens", "log_probs"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(rollouts, name))


def test_padding_may_hold_anything(parts):
    index, prompt, prompt_mask, rollouts, rewards, valid = parts
    plain = RolloutBatch.of(*parts[:5], valid=valid)
    dirty = RolloutBatch.of(
        index,
        prompt,
        prompt_mask,
        rollouts,
        rewards.at[3].set(jnp.nan).at[1, 2].set(9),
        valid=valid,
    )
    for one, other in zip(plain, dirty, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_the_selector_says_is_in_the_batch(parts):
    accept, weight = jnp.array([False, True, True, True]), jnp.array([1, 2, 3, 4], jnp.float32)
    batch = RolloutBatch.of(*parts[:5], accept=accept, weight=weight)
    assert numerator_weight(batch).tolist() == [0, 2, 3, 0]


def test_advantages_may_be_given(parts):
    found = Advantages(jnp.full((B, G), 0.5), jnp.array([True, False, True, True]))
    batch = RolloutBatch.of(*parts[:5], advantages=found)
    assert (batch.advantages == 0.5).all() and batch.informative is found.informative
    with pytest.raises(AssertionError, match="shape"):
        RolloutBatch.of(*parts[:5], advantages=Advantages(found.values[:, :2], found.informative))


@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_log_probability_that_is_not_finite_stays_visible(parts, broken):
    rollouts = parts[3]._replace(log_probs=parts[3].log_probs.at[0, 1, 1].set(broken))
    batch = RolloutBatch.of(*parts[:3], rollouts, parts[4])
    assert (
        jnp.isnan(batch.log_probs[0, 1, 1]) and jnp.isfinite(batch.log_probs).sum() == B * G * T - 1
    )


@pytest.mark.parametrize(
    ("prompts", "mini", "ways", "rows"),
    [(4, 2, 1, 4), (4, 2, 3, 6), (8, 2, 3, 12), (6, 3, 4, 8), (6, None, 4, 8), (4, 4, 8, 8)],
)
def test_rows_of_a_batch(prompts, mini, ways, rows):
    config = GRPOConfig(rollouts_per_prompt=G, mini_batch=mini)
    assert batch_rows(config, prompts, ways) == rows


def test_small_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="mini_batch=3 must divide the 8 prompts"):
        batch_rows(GRPOConfig(mini_batch=3), 8)
    with pytest.raises(
        ValueError, match="micro_batch=16 sequences does not divide a mini-batch of"
    ):
        batch_rows(GRPOConfig(mini_batch=2, micro_batch=16), 4, ways=3)
