import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.loop.buckets import cut, widths
from dpsjax.loop.groups import Draw, Groups, collected
from dpsjax.policy import Rollouts
from dpsjax.run.config import RolloutConfig
from dpsjax.run.setup import make_mesh
from dpsjax.selectors import Feedback
from tests.run import tiny


def test_steps_of_short_prompts_are_narrower_and_learn_the_same(prepared):
    run, state = prepared
    narrow = dataclasses.replace(run, buckets=8)
    before = run.stages.generate._cache_size()
    plain, records = tiny.steps(run, state, count=3)
    cut, others = tiny.steps(narrow, state, count=3)
    assert run.stages.generate._cache_size() > max(before, 1)  # another width was used
    for one, two in zip(records, others, strict=True):
        assert one["groups"]["prompt"] == two["groups"]["prompt"]
        assert one["groups"]["passes"] == two["groups"]["passes"]
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4, abs=1e-6)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(close, plain.params, cut.params)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nothing_but_padding_is_cut(count):
    mesh = make_mesh(tiny.MeshConfig(data=2))
    lengths, ends = np.array([2, 3]), np.array([[1, 4], [0, 2]])
    mask = jnp.asarray(np.arange(10) >= 10 - lengths[:, None])
    prompt = jnp.where(mask, jnp.arange(10, dtype=jnp.int32)[None], 0)
    third = jnp.full((3, 2), 1 / 3, jnp.float32)
    ids = jnp.arange(2, dtype=jnp.int32)
    ones = jnp.ones(2, jnp.float32)
    draw = Draw(ids, ones, prompt, mask, third, third[:, 0])
    real = jnp.asarray(np.arange(10) < ends[..., None])
    tokens = jnp.where(real, jnp.arange(10, dtype=jnp.int32)[None, None], 0)
    rollouts = Rollouts(tokens, real, -real.astype(jnp.float32), jnp.int32(10))
    groups = Groups(rollouts, jnp.zeros((2, 2), jnp.float32), real[..., 0], real[..., 0])
    taken = collected(draw, groups, Feedback(ids >= 0, ones), jnp.int32(0))
    later = groups._replace(rollouts=rollouts._replace(mask=real & False))
    short, rest = cut(taken, later, count, mesh)  # both as the longer of the two
    alone, _ = cut(taken, None, count, mesh)
    width, length = {1: (10, 10), 2: (5, 5), 5: (4, 4)}[count]
    assert short.prompt.shape == short.prompt_mask.shape == (2, width)
    np.testing.assert_array_equal(short.prompt, prompt[:, 10 - width :])
    np.testing.assert_array_equal(short.prompt_mask, mask[:, 10 - width :])
    for name in ("tokens", "mask", "log_probs"):
        whole = getattr(rollouts, name)
        np.testing.assert_array_equal(getattr(short, name), whole[:, :, :length])
        np.testing.assert_array_equal(getattr(alone, name), whole[:, :, :length])
        assert getattr(rest.rollouts, name).shape == whole[:, :, :length].shape


def test_widths_end_with_the_longest():
    assert widths(7, 1) == (7,) and widths(7, 3) == (3, 5, 7) and widths(2, 9) == (1, 2)


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="buckets=0 must be at least 1"):
        RolloutConfig(buckets=0)
    with pytest.raises(ValueError, match=r"rollout\.buckets=2 would change the length"):
        tiny.config(
            rollout=RolloutConfig(prompts=4, buckets=2),
            grpo=tiny.grpo(aggregation="constant-length"),
        )
    with pytest.raises(ValueError, match=r"model\.waves=3 must divide rollouts_per_prompt=4"):
        tiny.config(model=dataclasses.replace(tiny.MODEL, waves=3))
