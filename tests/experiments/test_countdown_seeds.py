"""The runs over seeds from end to end, on a few tiny steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_table_with_claims_and_no_run_twice(tmp_path):
    script = Path(__file__).parents[2] / "experiments" / "countdown_seeds.py"
    command = [
        sys.executable,
        script,
        "--smoke",
        "--out",
        tmp_path,
        "--selectors",
        "dps",
        "uniform",
    ]
    subprocess.run(command, check=True, timeout=600)
    first = (tmp_path / "table.json").read_text()
    record = json.loads(first)
    assert record["seeds"] == [0, 1] and set(record["means"]) == {"dps", "uniform"}
    assert {row["measure"] for row in record["claims"]} >= {"learned", "brier_skill", "seconds"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}
    assert len(before) == 4
    subprocess.run(command, check=True, timeout=600)
    assert (tmp_path / "table.json").read_text() == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
