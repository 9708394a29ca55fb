"""A folder is written by one process at a time, and nothing of anybody else's is lost in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax.run import outputs
from dpsjax.run.checkpoint import Saver, step_folders
from dpsjax.run.claim import claim, refuse_foreign
from dpsjax.run.config import CheckpointConfig


def test_a_folder_belongs_to_one_process(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom dpsjax.run.claim import claim\n"
        f"lock = claim(Path({str(tmp_path / 'run')!r}))\nprint('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    with pytest.raises(ValueError, match=rf"run' is in use by process {other.pid} on .*--out"):
        claim(tmp_path / "run")
    other.kill()  # whatever way it ends, the lock is free
    other.communicate()
    claim(tmp_path / "run").close()
    claim(tmp_path / "run").close()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "model", "weights.safetensors"])
def test_what_no_run_wrote_is_never_overwritten(tmp_path, name):
    """A model's folder, given to --out by mistake, has a config.json too."""
    (tmp_path / name).write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match=rf"holds .*{name}, which no run wrote.*choose another"):
        refuse_foreign(tmp_path)
    (tmp_path / outputs.CONFIG).write_text('["not a record"]')
    with pytest.raises(ValueError, match="no run wrote"):
        refuse_foreign(tmp_path)


def test_what_is_no_result_may_lie_in_the_folder(tmp_path):
    refuse_foreign(tmp_path / "new")
    (tmp_path / "notes.txt").write_text("mine")
    refuse_foreign(tmp_path)
    (tmp_path / outputs.METRICS).write_text("")
    record = {"config": {}, "command": "", "data_fingerprint": ""}
    (tmp_path / outputs.CONFIG).write_text(json.dumps(record))
    refuse_foreign(tmp_path)
    with pytest.raises(NotADirectoryError, match=r"out=.*notes.txt' is a file"):
        refuse_foreign(tmp_path / "notes.txt")


def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path):
    """Only what Orbax left half written is deleted."""
    for name in ("4.backup", "4.orbax-checkpoint-tmp", "²", "007", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "9").write_text("a file")
    saver = Saver(tmp_path, CheckpointConfig(), pytest.fail)
    saver._clear("4")
    left = {path.name for path in Path(tmp_path).iterdir()}
    assert left == {"4.backup", "²", "007", "old", "9"}
    assert step_folders(tmp_path) == []
