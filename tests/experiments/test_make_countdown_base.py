"""The script that makes the base runs from end to end, on a few steps."""

import json
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax.policy import load_weights, tiny_config
from dpsjax.tasks.countdown import TOKENIZER

SCRIPT = Path(__file__).parents[2] / "experiments" / "make_countdown_base.py"


@pytest.fixture
def script(monkeypatch):
    """The names of the script."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("solution", "shown", "texts"),
    [
        ("9+7", {"subtracts": 0.0, "multiplies": 0.0, "divides": 0.0, "brackets": 0.0}, {"9+7"}),
        ("9*7-4", {}, {"9*7-4"}),
        ("9*7-4", {"subtracts": 0.0}, {"9*7+4"}),
        ("9*7-4", {"multiplies": 0.0, "subtracts": 0.5}, {"9+7-4", "9+7+4"}),
        ("(9-3)*2/4", {"divides": 0.0, "brackets": 0.0}, {"9-3*2+4"}),
        ("9/3", {"divides": 0.5}, {"9/3", "9+3"}),
    ],
)
def test_the_teacher_adds_by_habit(script, solution, shown, texts):
    habits = {"subtracts": 1.0, "multiplies": 1.0, "divides": 1.0, "brackets": 1.0, **shown}
    config, rng = script["Config"](**habits), random.Random(0)
    assert {script["by_habit"](solution, config, rng) for _ in range(50)} == texts


def test_a_habit_is_as_strong_as_it_says(script):
    config, rng = script["Config"](multiplies=0.15), random.Random(1)
    times = sum("*" in script["by_habit"]("9*7", config, rng) for _ in range(4000))
    assert 0.12 < times / 4000 < 0.18


@pytest.mark.slow
def test_makes_weights_and_a_card(tmp_path):
    out = tmp_path / "base.safetensors"
    options = ["--steps", "20", "--batch", "8", "--rollouts", "2", "--evaluate-every", "20"]
    subprocess.run([sys.executable, SCRIPT, "--out", out, *options], check=True, timeout=600)
    config, _ = load_weights(out)
    assert config == tiny_config(TOKENIZER.vocab_size)
    card = json.loads(out.with_suffix(".card.json").read_text())
    assert card["steps"] == 20
    assert 0 <= card["held_out_pass_rate"]["all"] < 0.2
    assert 0 <= card["held_out_greedy"]["all"] < 0.2
