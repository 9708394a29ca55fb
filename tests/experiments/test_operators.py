"""The experiments on operator chains work end to end, with tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


def run(script, *options):
    command = [sys.executable, str(FOLDER / script), "--smoke", *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", ["operators_table.py", "operators_why.py"])
def test_runs_are_kept_and_compared(script, tmp_path):
    out = tmp_path / "runs.jsonl"
    shown = run(script, "--out", str(out))
    lines = out.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {len(row["held_out"]) for row in rows} == {11}
    assert "uniform-epochs" in shown and "smoke" in shown
    run(script, "--out", str(out))  # nothing is done twice
    assert out.read_text(encoding="utf-8") == lines


@pytest.mark.slow
def test_gradients_are_compared(tmp_path):
    out = tmp_path / "gradient.json"
    run("operators_gradient.py", "--out", str(out))
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 6 and all(-1 <= row["cosine_of_mean"] <= 1 for row in rows)
