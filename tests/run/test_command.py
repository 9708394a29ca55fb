"""The whole command where something around it fails: disks, workers, a kill in the first save."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax import cli
from dpsjax.run.checkpoint import last_good, step_folders
from tests.test_cli import TINY

REPOSITORY = Path(__file__).parents[2]
FOUR = [*TINY, "--steps", "4", "--checkpoint.every", "2"]


def same_run(out, whole):
    """Equal digests of the last state, and equal lines but for the clock."""
    one, two = (json.loads((path / "summary.json").read_text()) for path in (out, whole))
    for name in ("params_digest", "selector_digest"):
        assert one[name] == two[name]
    texts = [(path / "metrics.jsonl").read_text().splitlines() for path in (out, whole)]
    lines = [[{**json.loads(text), "seconds": None} for text in of] for of in texts]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [1, 2, 3, 4]


def contents(folder):
    """Every file of a folder and what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp("command") / "whole"
    assert cli.main([*FOUR, "--out", str(out)]) == 0
    return out


def fill(folder, left):
    """Take the room of a file system, but for some bytes."""
    room = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(b"x" * max(room.f_bavail * room.f_bsize - left, 0))
    return filler


@pytest.mark.slow
def test_workers_that_score_change_nothing(whole, tmp_path):
    out = tmp_path / "out"
    assert cli.main([*FOUR, "--score-workers", "2", "--out", str(out)]) == 0
    same_run(out, whole)


@pytest.mark.parametrize("begun", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_folder_that_cannot_be_written_is_refused(begun, disk, capsys, request):
    """Nothing is computed first, and a run that lies there is as it was."""
    folder = disk("32m")
    out = folder / "out"
    if begun:
        shutil.copytree(request.getfixturevalue("whole"), out)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    before = contents(folder)
    assert cli.main([*FOUR, "--steps", "6", "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert "Read-only file system" in shown.err and str(out) in shown.err.replace("\n", "")
    assert "Traceback" not in shown.err and "step 1" not in shown.out
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "option", "message"),
    [
        (20_000, "continue", "step 4 could not be written"),
        (20_000, "stop", "step 4 could not be written"),
        (0, "continue", "No space left on device"),  # not even what is written at the start
    ],
)
def test_a_disk_that_fills_up_loses_nothing(whole, disk, capsys, caplog, left, option, message):
    folder = disk("32m")
    out = folder / "out"
    words = [*FOUR, "--checkpoint.on-error", option, "--out", str(out)]
    assert cli.main([*words, "--steps", "2"]) == 0
    capsys.readouterr()
    filler = fill(folder, left)
    weights = (out / "weights.safetensors").read_bytes()
    code = cli.main(words)
    shown = capsys.readouterr()
    gc.collect()  # no write that failed is still there, to be reported in the middle of anything
    assert not caplog.records
    assert code == 1 and "the same command continues" in shown.err.replace("\n", " ")
    assert message in (shown.out + shown.err).replace("\n", " ")
    assert "Traceback" not in shown.out + shown.err
    assert ("training goes on" in shown.out) == (option == "continue" and left > 0)
    assert ("step 3/" in shown.out) == (left > 0)
    assert last_good(out / "checkpoints")[0] == out / "checkpoints" / "2"
    assert (out / "weights.safetensors").read_bytes() == weights
    filler.unlink()
    assert cli.main(words) == 0
    assert "continuing after step 2" in capsys.readouterr().out
    same_run(out, whole)


def launch(out, stage):
    """Four steps of a run of benchmarks/resume.py, with a kill as the first of a stage begins."""
    out.mkdir(exist_ok=True)
    script = str(REPOSITORY / "benchmarks" / "resume.py")
    words = ["--worker", stage, "1", "0.0", "--steps", "4", "--folder", str(out)]
    return subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, cwd=REPOSITORY
    )


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp("command") / "never"
    done = launch(out, "none")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["save", "seal", "rename"])
def test_a_kill_in_the_first_checkpoint_of_all(stage, never_killed, tmp_path):
    """Nothing is saved yet, or the whole of the first: the same command makes the same run."""
    out = tmp_path / "killed"
    done = launch(out, stage)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = len(step_folders(out / "checkpoints"))
    assert saved <= (stage == "rename")
    done = launch(out, "none")
    assert done.returncode == 0, done.stderr
    said = "continuing after step 2" if saved else "has no checkpoint yet"
    assert said in done.stdout.replace("\n", " ")
    same_run(out, never_killed)
