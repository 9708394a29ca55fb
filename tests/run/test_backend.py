"""Switches of JAX under which nothing can run are told in a sentence."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("JAX_PLATFORMS", "nonsense", "name a platform that is here, such as JAX_PLATFORMS=cpu"),
        ("JAX_TRANSFER_GUARD", "disallow", "JAX_TRANSFER_GUARD=disallow forbids"),
    ],
)
def test_one_sentence_and_no_traceback(name, value, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dpsjax.cli", "train", "countdown", "--out", str(tmp_path / "run")],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 6
