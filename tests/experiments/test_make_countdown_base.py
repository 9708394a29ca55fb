"""The script that makes the base runs from end to end, on a few steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax.policy import load_weights, tiny_config
from dpsjax.tasks.countdown import TOKENIZER


@pytest.mark.slow
def test_makes_weights_and_a_card(tmp_path):
    script = Path(__file__).parents[2] / "experiments" / "make_countdown_base.py"
    out = tmp_path / "base.safetensors"
    options = ["--steps", "20", "--batch", "8", "--rollouts", "2", "--evaluate-every", "20"]
    subprocess.run([sys.executable, script, "--out", out, *options], check=True, timeout=600)
    config, _ = load_weights(out)
    assert config == tiny_config(TOKENIZER.vocab_size)
    card = json.loads(out.with_suffix(".card.json").read_text())
    assert card["steps"] == 20
    assert 0 <= card["held_out_pass_rate"]["all"] < 0.2
