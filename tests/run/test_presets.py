"""Presets hold the published values, are typed by name, and give way to what is typed."""

import pytest

from dpsjax.cli import parse_train
from dpsjax.run.config import from_dict, to_dict
from dpsjax.run.presets import PRESETS, preset_of, resolved, table
from tests.pages import ROOT

# As read in the released scripts: steps, prompts, mini-batch, decay, steps between evaluations,
# longest response, weight of the KL.
PUBLISHED = {
    "dps-math-1.5b": ("math", 360, 256, 128, 0.7, 5, 8192, 0.0),
    "dps-math-7b": ("math", 130, 256, 128, 0.7, 5, 8192, 0.0),
    "dps-countdown-3b": ("countdown", 120, 256, 64, 0.5, 10, 1024, 0.0),
    "dps-countdown-7b": ("countdown", 120, 256, 64, 0.5, 10, 1024, 0.0),
    "dps-geo3k-3b": ("geometry3k", 120, 512, 256, 0.5, 10, 1024, 0.01),
    "dps-geo3k-7b": ("geometry3k", 80, 512, 256, 0.5, 10, 1024, 0.03),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_holds_the_published_values(name):
    task, steps, prompts, mini, decay, every, tokens, kl = PUBLISHED[name]
    config = parse_train(["--preset", name], task).config
    grpo, evaluation = config.grpo, config.evaluation
    assert (config.steps, config.rollout.prompts, grpo.mini_batch) == (steps, prompts, mini)
    assert (config.selector.name, config.selector.decay) == ("dps", decay)
    assert (config.selector.prior_alpha, config.selector.max_rounds) == (1.0, 1)
    assert (evaluation.every, evaluation.samples, evaluation.temperature) == (every, 16, 0.6)
    assert config.task.response_tokens == tokens
    assert (grpo.rollouts_per_prompt, grpo.epochs, grpo.learning_rate) == (8, 1, 1e-6)
    assert (grpo.weight_decay, grpo.max_grad_norm) == (0.1, 1.0)
    loss = grpo.loss
    assert (loss.clip_low, loss.clip_high, loss.dual_clip) == (0.2, 0.28, 10.0)
    assert (loss.entropy_coefficient, loss.kl_coefficient) == (0.001, kl)
    assert (loss.advantages, loss.aggregation) == ("group-normalized", "token-mean")
    rollout = config.rollout
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, 0)
    assert (rollout.overlong_buffer, rollout.mask_truncated) == (0, False)
    if task == "countdown":
        assert (config.task.problems, config.task.format_reward) == (2000, 0.1)
        assert (config.task.sizes, config.task.tags) == ((3, 4), "required")


def test_every_published_run_has_its_row():
    assert {name for name, preset in PRESETS.items() if preset.script} == set(PUBLISHED)


def test_what_is_typed_comes_first_and_the_record_has_it(tmp_path):
    words = ["--preset", "dps-math-7b", "--steps", "7", "--selector", "uniform", "--prompts", "9"]
    parsed = parse_train(words, "math")
    config = parsed.config
    assert (config.steps, config.selector.name, config.rollout.prompts) == (7, "uniform", 9)
    assert config.grpo.mini_batch == 128 and config.rollout.seconds == 10  # mathematics' own
    record = to_dict(config)
    assert from_dict(record) == from_dict(to_dict(from_dict(record)))
    said = resolved(parsed.preset, record)
    assert said.startswith("preset dps-math-7b (DeepSeek-R1-Distill-Qwen-7B; recipe/dps/scripts/")
    assert "steps=7, rollout.prompts=9" in said and "grpo.loss.kl_coefficient=0.0" in said
    assert "selector.name=uniform, selector.decay=-" in said


def test_the_pools_of_countdown_have_names():
    four = parse_train(["--preset", "cd4"]).config
    assert (four.task.sizes, four.task.targets, four.steps) == ((4,), (1, 99), 100)
    assert parse_train(["--preset", "cd34", "--task.problems", "5"]).config.task.problems == 5


def test_the_page_has_their_table():
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    assert page.split("-->\n\n")[1] == table()


def test_wrong_names_are_told_the_right_ones(capsys):
    with pytest.raises(ValueError, match=r"use one of dps-math-1\.5b, dps-math-7b"):
        preset_of("dps-math", "math")
    with pytest.raises(ValueError, match="is of dpsjax train math; operators has none"):
        parse_train(["--preset", "dps-math-7b"], "operators")
    with pytest.raises(SystemExit):
        parse_train(["--preset", "dps-math-7b", "--help"], "math")
    text = " ".join(capsys.readouterr().out.split())
    assert "dps-countdown-3b (countdown, Qwen2.5-3B)" in text and "8192" in text
