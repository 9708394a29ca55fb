"""Several processes for real: they find each other on this machine, with gloo between them."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dpsjax.loop.metrics import read_records
from tests.run.launch import Processes, run


def _metrics(folder: Path):
    return read_records(folder / "metrics.jsonl")


def _summary(folder: Path):
    return json.loads((folder / "summary.json").read_text())


def _same_runs(folder: Path, other: Path) -> None:
    """The same selections and rollouts; sums over devices may round otherwise."""
    ours, theirs = _metrics(folder), _metrics(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert set(line) == set(expected)
        for name in ("prompt", "passes", "trials", "state"):
            assert line["groups"][name] == expected["groups"][name]
        for name in ("coverage", "rollouts", "tokens", "reward_errors", "groups_in_loss"):
            assert line[name] == expected[name]
        for name in ("loss", "grad_norm", "entropy", "reward"):
            assert line[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)
    assert _summary(folder)["selector_digest"] == _summary(other)["selector_digest"]
    weights, others = (load_file(f / "weights.safetensors") for f in (folder, other))
    for name, values in weights.items():
        np.testing.assert_allclose(values, others[name], rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Eight steps of one process with eight devices."""
    folder = tmp_path_factory.mktemp("processes") / "one"
    run(1, 8, "--steps", "8", "--out", str(folder))
    assert any(line["groups_in_loss"] for line in _metrics(folder))
    return folder


@pytest.mark.slow
def test_two_processes_do_what_one_does(one_process, tmp_path):
    outputs = run(2, 4, "--steps", "8", "--out", str(tmp_path), "--mesh.fsdp", "2")
    _same_runs(tmp_path, one_process)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["devices"]["processes"] == 2 and record["devices"]["count"] == 8
    assert "held-out accuracy" in outputs[0] and "held-out" not in outputs[1]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in one_process.iterdir())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(
        path.name for path in (one_process / "checkpoints").iterdir()
    )


@pytest.mark.slow
def test_a_run_moves_from_one_process_to_two_to_four_and_back(one_process, tmp_path):
    for count, steps in ((1, 2), (2, 4), (4, 6), (1, 8)):
        outputs = run(count, 8 // count, "--steps", str(steps), "--out", str(tmp_path))
        assert steps == 2 or f"continuing after step {steps - 2}" in outputs[0]
    _same_runs(tmp_path, one_process)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Twenty-four steps of two processes that nothing happens to."""
    folder = tmp_path_factory.mktemp("processes") / "two"
    run(2, 1, "--steps", "24", "--out", str(folder))
    return folder


def _same_bits(folder: Path, other: Path) -> None:
    """The same run: every digest, and every line but for the clock."""
    for name in ("params_digest", "selector_digest"):
        assert _summary(folder)[name] == _summary(other)[name]
    lines = [[{**line, "seconds": None} for line in _metrics(of)] for of in (folder, other)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_losing_a_process_ends_the_other_and_the_run_goes_on(two_processes, lost, tmp_path):
    """The other ends within a bounded time and says why; the same command makes the same run."""
    words = ["--steps", "24", "--out", str(tmp_path), "--lost-seconds", "10"]
    both = Processes(2, 1, words)
    both.wait_for_lines(tmp_path / "metrics.jsonl", 5)
    both.running[lost].kill()
    killed = time.monotonic()
    codes, outputs = both.wait(60)
    other = 1 - lost
    assert time.monotonic() - killed < 45
    assert codes[lost] == -signal.SIGKILL and codes[other] not in (0, -signal.SIGKILL)
    assert "another process was lost" in outputs[other] or "another task died" in outputs[other]
    assert not (tmp_path / "summary.json").exists()
    outputs = run(2, 1, *words)
    assert "continuing after step" in outputs[0]
    _same_bits(tmp_path, two_processes)


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(tmp_path):
    """Its connections stay open, so only its silence tells."""
    both = Processes(2, 1, ["--steps", "1000", "--out", str(tmp_path), "--lost-seconds", "10"])
    both.wait_for_lines(tmp_path / "metrics.jsonl", 3)
    both.running[1].send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        both.running[0].wait(90)
    finally:
        both.running[1].kill()
    codes, outputs = both.wait(10)
    assert time.monotonic() - stopped < 60
    assert codes[0] not in (0, -signal.SIGKILL)
    assert "process was lost" in outputs[0] or "task died" in outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_sigterm_at_any_process_saves_and_ends_all(asked, tmp_path):
    both = Processes(2, 1, ["--steps", "1000", "--out", str(tmp_path)])
    both.wait_for_lines(tmp_path / "metrics.jsonl", 3)
    both.running[asked].send_signal(signal.SIGTERM)
    codes, outputs = both.wait(60)
    assert codes == [0, 0], "\n".join(outputs)
    assert "stopped by SIGTERM, everything is saved" in outputs[0]
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == len(_metrics(tmp_path)) < 1000


def test_processes_with_other_settings_do_not_start(tmp_path):
    words = ["--steps", "2", "--out", str(tmp_path)]
    both = Processes(2, 1, words, own=(["--seed", "0"], ["--seed", "5"]))
    codes, outputs = both.wait(60)
    assert codes == [2, 2]
    for output in outputs:
        assert "settings.seed: 0 in process 0, 5 in process 1" in output
    assert not (tmp_path / "metrics.jsonl").exists()
