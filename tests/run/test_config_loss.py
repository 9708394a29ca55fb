import json

import pytest

from dpsjax.cli import parse_train
from dpsjax.grpo import BeliefAdvantages, denoised, leave_one_out
from dpsjax.grpo.aggregation import constant_length, token_mean
from dpsjax.grpo.kl import k1
from dpsjax.run.config import from_dict, to_dict
from tests.run import tiny


def test_loss_options_are_those_of_the_library():
    words = (
        "--loss.aggregation constant-length --loss.advantages leave-one-out --loss.kl-estimator k1 "
        "--loss.recompute-old --loss.sampler-ratio-cap 2 --loss.count-uninformative "
        "--loss.clip-high 0.3 --loss.kl-coefficient 0.01 --grpo.epochs 2 --grpo.mini-batch 16"
    )
    config = parse_train(words.split()).config
    loss = config.grpo.loss
    assert loss.aggregate is constant_length and loss.estimate_kl is k1
    assert loss.recompute_old and loss.count_uninformative
    assert loss.sampler_ratio_cap == 2.0
    assert loss.advantage_function is leave_one_out
    assert (config.grpo.epochs, config.grpo.mini_batch) == (2, 16)
    assert (loss.clip_high, loss.kl_coefficient) == (0.3, 0.01)
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again.grpo == config.grpo


def test_denoised_advantages_are_an_option():
    config = parse_train(["--loss.advantages", "denoised"]).config
    assert config.grpo.loss.advantage_function is denoised


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--loss.sampler-ratio-cap 2", "sampler_ratio_cap=2.0 needs"),
        ("--loss.sampler-ratio-cap 0 --loss.recompute-old", "must be above 0"),
        ("--loss.aggregation sum", "'token-mean'"),
        ("--loss.advantages mean", "'leave-one-out'"),
    ],
)
def test_what_cannot_be_is_refused_by_the_command_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_train(words.split())
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("field", "function"),
    [("aggregation", lambda mask, counted: token_mean(mask, counted)), ("advantages", denoised)],
)
def test_a_function_of_ones_own_is_recorded_by_its_name_and_not_built_again(field, function):
    config = tiny.config(grpo=tiny.grpo(**{field: function}))
    record = json.loads(json.dumps(to_dict(config)))
    named = function.function if isinstance(function, BeliefAdvantages) else function
    assert record["grpo"]["loss"][field] == f"{named.__module__}.{named.__qualname__}"
    with pytest.raises(ValueError, match=rf"grpo\.loss\.{field}='.*' must be like"):
        from_dict(record)
