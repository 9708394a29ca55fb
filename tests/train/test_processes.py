import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from dpsjax.train.config import CheckpointConfig
from dpsjax.train.metrics import read_records
from dpsjax.train.resume import Position
from dpsjax.train.run import Started, finish

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_on_two(prepared, tmp_path):
    """Both read it, and select and see what the one process does."""
    run, state = prepared
    for folder, steps in ((tmp_path / "one", 4), (tmp_path / "two", 2)):
        folder.mkdir()
        settings = dataclasses.replace(
            run.config, out=folder, steps=steps, checkpoint=CheckpointConfig(every=2)
        )
        copy = jax.tree.map(jnp.copy, state)
        begun = Started(dataclasses.replace(run, config=settings), copy, Position(), False)
        finish(begun, Console())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    words = [sys.executable, "-m", "tests.train.two_processes"]
    both = [
        subprocess.Popen(
            [*words, str(process), str(port), str(tmp_path / "two")],
            cwd=REPOSITORY,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(errors)
    expected = read_records(tmp_path / "one" / "metrics.jsonl")[2:]
    for process in (0, 1):
        lines = json.loads((tmp_path / "two" / f"process-{process}.json").read_text())
        for line, one in zip(lines, expected, strict=True):
            for name in ("prompt", "passes", "trials", "state"):
                assert line["groups"][name] == one["groups"][name]
            assert line["step"] == one["step"] and line["coverage"] == one["coverage"]
            assert line["loss"] == pytest.approx(one["loss"], abs=1e-5)
