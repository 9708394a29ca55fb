import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_sigkill_at_random_instants_changes_nothing():
    """A few kills in real processes; ``benchmarks/resume.py --kills 20`` is the long form."""
    script = REPOSITORY / "benchmarks" / "resume.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "4", "--steps", "8", "--seed", "1"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["kills"] >= 4 and record["identical"]
