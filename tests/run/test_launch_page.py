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
