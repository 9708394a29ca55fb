import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpsjax.grpo import GRPOConfig, LossConfig, decays, leave_one_out, make_optimizer
from dpsjax.grpo import config as settings
from dpsjax.grpo.aggregation import sequence_mean, token_mean
from dpsjax.grpo.kl import k1, k3
from tests.grpo.stand_in import params as make_params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollouts_per_prompt", 1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0.0),
        ("epochs", 0),
        ("mini_batch", 0),
        ("micro_batch", 0),
        ("micro_batch", 12),
    ],
)
def test_every_field_is_checked(field, value):
    with pytest.raises(ValueError, match=rf"GRPOConfig\.{field}={value!r} must be"):
        GRPOConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_low", 0.0),
        ("clip_low", 1.5),
        ("clip_high", -0.2),
        ("dual_clip", 1.2),
        ("entropy_coefficient", -1.0),
        ("kl_coefficient", float("nan")),
        ("sampler_ratio_cap", -1.0),
    ],
)
def test_every_field_of_the_loss_is_checked(field, value):
    with pytest.raises(ValueError, match=rf"LossConfig\.{field}={value!r} must be"):
        LossConfig(**{field: value})


def test_a_truncation_that_cannot_act_is_refused():
    with pytest.raises(ValueError, match=r"sampler_ratio_cap=2\.0 needs recompute_old=True"):
        LossConfig(sampler_ratio_cap=2.0)


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("advantages", settings.ADVANTAGES),
        ("aggregation", settings.AGGREGATIONS),
        ("kl_estimator", settings.KL_ESTIMATORS),
    ],
)
def test_every_name_stands_for_the_function_of_that_name(field, choices):
    names = typing.get_args(typing.get_type_hints(LossConfig)[field])
    assert typing.get_args(names[0]) == tuple(choices)
    for name in choices:
        loss = LossConfig(**{field: name})
        found = (loss.advantage_function, loss.aggregate, loss.estimate_kl)
        assert choices[name] in found
        if name != "denoised":
            assert choices[name].__name__ == name.replace("-", "_")


def test_a_function_may_stand_for_a_name():
    loss = LossConfig(advantages=leave_one_out, aggregation=sequence_mean, kl_estimator=k1)
    assert loss.advantage_function is leave_one_out
    assert loss.aggregate is sequence_mean and loss.estimate_kl is k1


def test_defaults_are_the_published_settings():
    config, loss = GRPOConfig(), LossConfig()
    assert config.loss == loss
    assert (loss.clip_low, loss.clip_high, loss.dual_clip) == (0.2, 0.28, 10.0)
    assert (loss.entropy_coefficient, loss.kl_coefficient) == (0.001, 0)
    assert loss.advantage_function is settings.ADVANTAGES["group-normalized"]
    assert loss.aggregate is token_mean and loss.estimate_kl is k3
    assert not loss.recompute_old and loss.sampler_ratio_cap is None
    assert (config.weight_decay, config.max_grad_norm, config.learning_rate) == (0.1, 1.0, 1e-6)
    assert (config.rollouts_per_prompt, config.epochs) == (8, 1)
    assert max(len(dataclasses.fields(part)) for part in (config, loss)) <= 12
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 2  # pyright: ignore


def test_the_optimizer_clips_then_decays_matrices_only():
    config = GRPOConfig(learning_rate=0.1, weight_decay=0.5, max_grad_norm=1e-3)
    params = make_params()
    optimizer = make_optimizer(config)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        param = dict(jax.tree_util.tree_leaves_with_path(params))[path]
        want = np.zeros_like(param) if "bias" in name else -0.1 * 0.5 * param
        np.testing.assert_allclose(update, want, rtol=1e-6, err_msg=name)
    # Adam forgets the scale of a first gradient, but not the ratio of two: the clip is visible
    # in the second step.
    big = jax.tree.map(lambda x: jnp.full_like(x, 100.0), params)
    small = jax.tree.map(lambda x: x * 1e-9, big)
    plain = optax.adamw(0.1, weight_decay=0.5, mask=decays)
    norm = optax.global_norm(big)
    with jax.numpy_dtype_promotion("standard"):
        clipped = jax.tree.map(lambda x: x / norm * 1e-3, big)
        _, state = plain.update(clipped, plain.init(params), params)
        want, _ = plain.update(small, state, params)
    _, state = optimizer.update(big, optimizer.init(params), params)
    got, _ = optimizer.update(small, state, params)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_schedule_replaces_the_constant():
    params = make_params()
    grads = jax.tree.map(jnp.ones_like, params)
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    optimizer = make_optimizer(GRPOConfig(weight_decay=0.0), schedule)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    assert not np.any(updates["head_dv"])
    updates, state = optimizer.update(grads, state, params)
    np.testing.assert_allclose(updates["head_dv"], -0.1, rtol=1e-3)
