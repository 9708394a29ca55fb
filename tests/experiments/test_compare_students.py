"""The comparison over students from end to end, on a few small steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_table_picture_and_ranks(tmp_path):
    script = Path(__file__).parents[2] / "experiments" / "compare_students.py"
    options = "--students slow forgetting --selectors dps mopps --seeds 2 --steps 4 --pool 60"
    command = [sys.executable, script, *options.split(), "--batch", "8", "--out", tmp_path]
    subprocess.run(command, check=True, timeout=300)
    table = (tmp_path / "students.md").read_text()
    assert table.count("\n") == 6 and "| selector | mean rank | slow | forgetting |" in table
    ranks = json.loads((tmp_path / "ranks.json").read_text())["ranks"]["slow"]
    assert sorted(ranks.values()) == [1, 2, 3] and set(ranks) == {"uniform", "dps", "mopps"}
    assert (tmp_path / "students.png").stat().st_size > 5000
