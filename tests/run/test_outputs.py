import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dpsjax.loop.metrics import read_records, write_record
from dpsjax.loop.state import digest
from dpsjax.policy import load_weights
from dpsjax.run import outputs
from dpsjax.run.checkpoint import read_state
from dpsjax.run.config import TrainConfig, to_dict
from dpsjax.run.position import Position
from dpsjax.run.run import Started, finish
from tests.run import tiny


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """The folder of a finished run and its summary."""
    run, state = prepared
    folder = tmp_path_factory.mktemp("run")
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=folder))
    started = Started(run, jax.tree.map(jnp.copy, state), Position(), finished=False)
    outputs.write_json(folder / outputs.CONFIG, outputs.manifest(run, "dpsjax train countdown"))
    return folder, finish(started, Console())


def test_the_folder_of_a_run(prepared, finished):
    folder, summary = finished
    records = read_records(folder / outputs.METRICS)
    assert json.loads((folder / outputs.SUMMARY).read_text()) == summary
    assert summary["steps"] == len(records) == 2
    assert summary["rollouts"] == 2 * 4 * tiny.GROUP == records[-1]["rollouts"]
    assert summary["accuracy_before"] == records[0]["held_out_before_accuracy"]
    assert summary["accuracy_after"] == records[-1]["held_out_accuracy"]
    assert summary["greedy_before"] == records[0]["held_out_before_greedy"]
    assert summary["greedy_after"] == records[-1]["held_out_greedy"]
    tried = summary["accuracy_before_by_temperature"]
    assert list(tried) == ["0", "0.25", "0.5", "0.75", "1"]
    assert (tried["0"], tried["1"]) == (summary["greedy_before"], summary["accuracy_before"])
    assert summary["effective_ratio"] == np.mean([r["effective_ratio"] for r in records])
    assert summary["coverage"] == records[-1]["coverage"] <= summary["pool"] == 32
    assert summary["truncated"] == sum(r["truncated"] for r in records) > 0
    assert summary["seconds"] >= 0 and summary["peak_memory_mib"] > 1
    pictures = sorted(path.name for path in (folder / outputs.PLOTS).iterdir())
    assert pictures == [
        "accuracy.png",
        "calibration.png",
        "confusion.png",
        "effective_ratio.png",
        "occupancy_observed.png",
        "occupancy_predicted.png",
        "prompts.png",
    ]
    assert all((folder / outputs.PLOTS / name).stat().st_size > 5000 for name in pictures)


def test_digests_are_those_of_the_saved_arrays(prepared, finished):
    folder, summary = finished
    state = read_state(
        folder / outputs.CHECKPOINTS / "2", prepared[1], prepared[0].stages.axes, 32, 32
    )
    assert digest(state.params) == summary["params_digest"]
    assert digest(state.selector) == summary["selector_digest"]
    assert int(state.step) == 2 and jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    policy, params = load_weights(folder / outputs.WEIGHTS)
    assert policy == prepared[0].policy
    assert digest(params) == summary["params_digest"]


def test_the_same_state_gives_the_same_digests(prepared, finished):
    state, _ = tiny.steps(*prepared, count=2)
    assert digest(state.params) == finished[1]["params_digest"]
    assert digest(state.selector) == finished[1]["selector_digest"]


def test_the_manifest_is_resolved_and_holds_nothing_of_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-hunter2")
    text = json.dumps(outputs.manifest(prepared[0], "dpsjax train countdown --steps 2"))
    values = json.loads(text)
    assert "hunter2" not in text
    assert values["config"]["selector"] == {
        "name": "dps",
        "decay": 0.5,
        "prior_alpha": 1.0,
        "num_states": 3,
        "target": "partial",
        "entropy": None,
        "power": None,
        "candidates": None,
        "max_rounds": 1,
        "around": {
            "cool_down": 0,
            "mix_uniform": 0.0,
            "revisit_after": 0,
            "revisit_share": 0.1,
            "stratify": False,
            "difficulty": None,
        },
    }
    assert values["versions"]["jax"] == jax.__version__
    assert values["data_fingerprint"] == prepared[0].task.fingerprint()
    assert values["devices"]["count"] == 1


def test_every_setting_is_in_the_dictionary():
    values = to_dict(TrainConfig())
    assert set(values) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert values["out"] == "runs/countdown-frontier-seed0"
    learning_rate = json.loads(json.dumps(values))["grpo"]["learning_rate"]
    assert learning_rate == TrainConfig().grpo.learning_rate


def test_an_earlier_run_is_moved_aside(tmp_path):
    assert outputs.open_folder(tmp_path) is None
    for number in (1, 2):
        (tmp_path / outputs.SUMMARY).write_text(str(number))
        (tmp_path / "mine.txt").write_text("not ours")
        assert outputs.open_folder(tmp_path) == tmp_path / f"earlier-{number}"
        assert (tmp_path / f"earlier-{number}" / outputs.SUMMARY).read_text() == str(number)
    assert not (tmp_path / outputs.SUMMARY).exists()
    assert (tmp_path / "mine.txt").exists()


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "m.jsonl"
    with path.open("w") as stream:
        write_record(stream, {"step": 1, "loss": float("nan"), "groups": {"x": [float("inf"), 1]}})
        assert path.read_text() == '{"step": 1, "loss": null, "groups": {"x": [null, 1]}}\n'
    path.write_text('{"step": 1}\n{"step"')
    with pytest.raises(ValueError, match="line 2"):
        read_records(path)


def test_git_commit_outside_a_work_tree_is_none(tmp_path):
    assert outputs.git_commit(tmp_path) is None
