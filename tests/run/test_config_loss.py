import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.cli import parse_train
from dpsjax.grpo import losses
from dpsjax.grpo.advantages import centered, denoised, group_normalized, leave_one_out
from dpsjax.run.config import LossConfig, from_dict, to_dict


def test_loss_options_are_typed_and_become_functions():
    words = (
        "--loss.aggregation constant-length --loss.advantages leave-one-out --loss.kl-estimator k1 "
        "--loss.recompute-old --loss.sampler-ratio-cap 2 --loss.count-uninformative "
        "--grpo.epochs 2 --grpo.mini-batch 16 --grpo.clip-high 0.3 --grpo.kl-coefficient 0.01"
    )
    config = parse_train(words.split()).config
    variant = config.loss.variant()
    assert variant.aggregate is losses.constant_length
    assert variant.kl_estimator is losses.k1
    assert variant.recompute_old and variant.count_uninformative
    assert variant.sampler_ratio_cap == 2.0
    assert config.loss.advantage_function() is leave_one_out
    assert (config.grpo.epochs, config.grpo.mini_batch, config.grpo.clip_high) == (2, 16, 0.3)
    assert from_dict(to_dict(config)) == from_dict(to_dict(from_dict(to_dict(config))))


def test_defaults_are_those_of_the_published_runs():
    variant = LossConfig().variant()
    assert variant.aggregate is losses.token_mean and variant.kl_estimator is losses.k3
    assert not variant.recompute_old and variant.sampler_ratio_cap is None
    assert LossConfig().advantage_function() is group_normalized


def test_denoised_advantages_are_an_option():
    config = parse_train(["--loss.advantages", "denoised"]).config
    assert config.loss.advantage_function() is denoised


@pytest.mark.parametrize("name", ["group-normalized", "centered", "leave-one-out"])
def test_advantages_sum_to_zero(name):
    rewards = jnp.asarray([[1.0, 0.0, 0.0, 0.0]], jnp.float32)
    values = LossConfig(advantages=name).advantage_function()(rewards, jnp.ones((1, 4), bool))
    np.testing.assert_allclose(values.values.sum(), 0, atol=1e-6)
    if name == "centered":
        np.testing.assert_allclose(
            values.values, centered(rewards, jnp.ones((1, 4), bool)).values, atol=0
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler_ratio_cap": 2.0}, "recompute_old"),
        ({"sampler_ratio_cap": 0.0, "recompute_old": True}, "above 0"),
    ],
)
def test_corrections_that_could_not_act_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**values)


def test_unknown_names_are_refused_by_the_command_line():
    with pytest.raises(SystemExit) as stop:
        parse_train(["--loss.aggregation", "sum"])
    assert stop.value.code == 2
