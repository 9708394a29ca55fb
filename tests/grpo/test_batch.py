"""Micro-batches: every rollout once, beside its own prompt, and evenly over the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.grpo.batch import MicroBatch, join_micro, split_micro


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
