"""The experiments on operator chains work end to end, with tiny sizes."""

import json
import shutil
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


@pytest.mark.slow
def test_pictures_are_drawn_of_the_records(tmp_path):
    for name in ("table", "map"):  # the runs that are kept are drawn as a map, too
        shutil.copy(FOLDER / "results/operators_table.jsonl", tmp_path / f"operators_{name}.jsonl")
    command = [sys.executable, str(FOLDER / "operators_figures.py"), "--results", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    made = {path.stem for path in tmp_path.glob("*.png")}
    assert made == {f"operators_{name}" for name in ("rollouts", "updates", "effective", "map")}
