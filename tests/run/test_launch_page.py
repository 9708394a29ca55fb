"""The options in docs/launch.md are options of the command."""

import re
from pathlib import Path

import pytest

from dpsjax.cli import parse_train

PAGE = Path(__file__).parents[2] / "docs" / "launch.md"


def commands() -> list[list[str]]:
    text = PAGE.read_text()
    text = re.sub(r"\\\n|>-\n", " ", text)
    text = re.sub(r"\n +--", " --", text)
    found = re.findall(r"dpsjax train countdown (--[^\n'&]*)", text)
    return [command.replace("$i", "0").split() for command in found]


def test_there_is_a_command_for_every_place():
    assert len(commands()) == 6


@pytest.mark.parametrize("words", commands(), ids=range(len(commands())))
def test_options_are_accepted(words):
    config = parse_train(words)
    assert config.config.out is not None


def of_models() -> list[list[str]]:
    return [words for words in commands() if "--model" in words]


def test_three_commands_train_language_models():
    assert len(of_models()) == 3


@pytest.mark.parametrize("words", of_models(), ids=range(len(of_models())))
def test_values_are_those_of_a_language_model(words, tmp_path):
    """What is trained on the page, not only that it parses: a toy's values ruin a real model."""
    folder = tmp_path / "Qwen"
    folder.mkdir()
    place = words.index("--model") + 1
    config = parse_train([*words[:place], str(folder), *words[place + 1 :]]).config
    assert config.grpo.learning_rate == 1e-6
    assert config.task.response_tokens >= 1024
    assert config.model.dtype == "bfloat16" and config.model.remat == "full"
    assert config.model.scan_layers


def test_nothing_is_installed_that_was_not_released():
    assert 'pip install "jax[tpu]" "dpsjax' not in PAGE.read_text(encoding="utf-8")
