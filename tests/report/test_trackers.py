"""`dpsjax log`: what arrives is the record; twice is once; a run that goes on is followed."""

import json
import struct
import threading
import time

import pytest

from dpsjax.cli import main
from dpsjax.report import trackers


def record(step):
    return {
        "step": step,
        "reward": step / 4,
        "seconds": {"step": 0.5},
        "kl": None,
        "groups": {"p": [1]},
    }


def append(folder, *steps):
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        for step in steps:
            stream.write(json.dumps(record(step)) + "\n")


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"config": {"seed": 3}}), encoding="utf-8")
    append(run, 1, 2)
    return run


class Memory:
    """A tracker that keeps what it gets."""

    kept: list

    def __init__(self, folder, run_id, config, after):
        self.run_id = run_id or "first"
        self.kept.append(("open", run_id, config, after))

    def log(self, step, values):
        self.kept.append((step, dict(values)))

    def attach(self, files):
        self.kept.append([path.name for path in files])

    def close(self):
        self.kept.append("closed")


@pytest.fixture
def memory(monkeypatch):
    Memory.kept = []
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Memory)
    return Memory.kept


NUMBERS = {"step": 1.0, "reward": 0.25, "seconds/step": 0.5}


def test_twice_is_once_and_the_run_is_found_again(folder, memory):
    assert trackers.send(folder, "tensorboard") == 2
    append(folder, 3)
    assert trackers.send(folder, "tensorboard") == 1
    assert trackers.send(folder, "tensorboard") == 0
    assert memory[0] == ("open", "", {"seed": 3}, 0)
    assert memory[1] == (1, NUMBERS)
    assert memory[4] == ("open", "first", {"seed": 3}, 2)
    assert [kept[0] for kept in memory if isinstance(kept, tuple) and kept[0] != "open"] == [
        1,
        2,
        3,
    ]


def test_a_run_is_followed_through_a_kill_to_its_end(folder, memory):
    """The file is cut back to a checkpoint, lines are torn, and each step arrives once."""

    def run():
        time.sleep(0.1)
        append(folder, 3)
        time.sleep(0.1)
        (folder / "metrics.jsonl").write_text("", encoding="utf-8")
        append(folder, 1, 2, 3)
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record(4))[:9])
            stream.flush()
            time.sleep(0.1)
            stream.write(json.dumps(record(4))[9:] + "\n")
        (folder / "report.md").write_text("# Page", encoding="utf-8")
        (folder / "summary.json").write_text("{}", encoding="utf-8")

    writer = threading.Thread(target=run)
    writer.start()
    assert trackers.send(folder, "tensorboard", follow=True, pause=0.02, wait=20.0) == 4
    writer.join()
    steps = [kept[0] for kept in memory if isinstance(kept, tuple) and kept[0] != "open"]
    assert steps == [1, 2, 3, 4]
    assert memory[-2:] == [["report.md"], "closed"]


def test_a_dead_run_is_not_waited_for_for_ever(folder, memory):
    assert trackers.send(folder, "tensorboard", follow=True, pause=0.01, wait=0.05) == 2


def test_what_cannot_be_sent_is_said(folder, tmp_path, memory, capsys):
    assert main(["log", str(tmp_path / "none")]) == 2
    assert "holds no metrics.jsonl" in capsys.readouterr().err
    (folder / "metrics.jsonl").write_text("{\n", encoding="utf-8")
    assert main(["log", str(folder)]) == 2
    assert "no JSON" in capsys.readouterr().err


def test_a_missing_client_names_its_extra(folder, monkeypatch, capsys):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", refuse)
    assert main(["log", str(folder), "--to", "wandb"]) == 2
    assert "pip install 'dpsjax[wandb]'" in capsys.readouterr().err


def test_tensorboard_reads_back(folder, capsys):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="no tensorboardX")
    assert main(["log", str(folder)]) == 0
    assert capsys.readouterr().out == "2 steps sent to tensorboard\n"
    append(folder, 3)
    assert main(["log", str(folder), "--to", "tensorboard"]) == 0
    found = []
    for path in sorted((folder / "tensorboard").glob("events*")):
        raw, place = path.read_bytes(), 0
        while place < len(raw):  # a length, its checksum, an event, its checksum
            (size,) = struct.unpack("<Q", raw[place : place + 8])
            event = event_pb2.Event.FromString(raw[place + 12 : place + 12 + size])
            values = [v for v in event.summary.value if v.tag == "reward"]
            found += [(event.step, value.simple_value) for value in values]
            place += 16 + size
    assert sorted(found) == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_mlflow_reads_back(folder, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trackers.send(folder, "mlflow") == 2
    append(folder, 3)
    assert trackers.send(folder, "mlflow") == 1
    run_id = json.loads((folder / "tracker.json").read_text(encoding="utf-8"))["mlflow"]["id"]
    history = mlflow.MlflowClient().get_metric_history(run_id, "reward")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_wandb_works_offline(folder, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert trackers.send(folder, "wandb") == 2
    run_id = json.loads((folder / "tracker.json").read_text(encoding="utf-8"))["wandb"]["id"]
    (kept,) = (folder / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb")
    late = time.monotonic() + 20  # its own process writes the file
    while kept.stat().st_size < 1000 and time.monotonic() < late:
        time.sleep(0.1)
    assert kept.stat().st_size > 1000 and run_id.encode() in kept.read_bytes()
    assert trackers.send(folder, "wandb") == 0  # found again by its id
    again = json.loads((folder / "tracker.json").read_text(encoding="utf-8"))["wandb"]
    assert again == {"id": run_id, "step": 2}
