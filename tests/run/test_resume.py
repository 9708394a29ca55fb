import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from dpsjax.loop.metrics import read_records
from dpsjax.loop.state import digest
from dpsjax.report import trackers
from dpsjax.report.callbacks import Callback
from dpsjax.run import checkpoint, outputs, resume, seal
from dpsjax.run.checkpoint import Saver, kept, last_good, read_state
from dpsjax.run.config import CheckpointConfig, EvaluationConfig, MeshConfig
from dpsjax.run.identity import differences, identity
from dpsjax.run.run import Started, finish
from tests.run import tiny

STEPS = 5
SETTINGS = {
    "steps": STEPS,
    "checkpoint": CheckpointConfig(every=2),
    "evaluation": EvaluationConfig(every=2, problems=6, samples=2),
}


@pytest.fixture(scope="module")
def compiled():
    return tiny.easy_run(tiny.config(**SETTINGS))


def begin(compiled, folder: Path, **changes) -> Started:
    """As ``run.start``, without compiling again."""
    run, state = compiled
    config = dataclasses.replace(run.config, out=folder, **changes)
    run = dataclasses.replace(run, config=config)
    folder.mkdir(parents=True, exist_ok=True)
    found = resume.resume(run, jax.tree.map(jnp.copy, state), folder)
    return Started(run, found.state, found.position, finished=False)


def complete(compiled, folder: Path, **changes) -> dict:
    """Start or continue, to the end: the summary."""
    summary = finish(begin(compiled, folder, **changes), Console())
    assert summary is not None
    return summary


def lines(folder: Path) -> list[dict]:
    """Everything in metrics.jsonl that does not depend on the clock."""
    return [tiny.timeless(record) for record in read_records(folder / outputs.METRICS)]


@pytest.fixture(scope="module")
def uninterrupted(compiled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return complete(compiled, folder), folder


def same_run(summary: dict, folder: Path, uninterrupted) -> None:
    whole, other = uninterrupted
    assert summary["params_digest"] == whole["params_digest"]
    assert summary["selector_digest"] == whole["selector_digest"]
    assert lines(folder) == lines(other)
    assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))


def killed_in(started: Started, stage: str, call: int) -> Started:
    """A run whose ``stage`` fails in its ``call``-th use, counted from 1."""
    run = started.run
    if stage == "evaluate":
        failing = tiny.die_in_call(run.evaluation.accuracy, call)
        dying = run.evaluation._replace(accuracy=failing)
        return started._replace(run=dataclasses.replace(run, evaluation=dying))
    failing = tiny.die_in_call(getattr(run.stages, stage), call)
    return started._replace(run=tiny.with_stages(run, **{stage: failing}))


@pytest.mark.parametrize(
    ("stage", "calls"),
    [
        ("select", (2,)),
        ("generate", (4,)),
        ("offer", (3,)),
        ("take", (3,)),
        ("update", (3, 2)),
        ("evaluate", (3,)),
    ],
)
def test_a_run_cut_off_at_a_stage_is_the_run_that_would_have_been(
    compiled, uninterrupted, tmp_path, stage, calls
):
    for call in calls:
        with pytest.raises(tiny.Killed):
            finish(killed_in(begin(compiled, tmp_path), stage, call), Console())
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)


def test_a_finished_run_is_recognised_and_can_be_made_longer(compiled, uninterrupted, tmp_path):
    complete(compiled, tmp_path, steps=2)
    assert begin(compiled, tmp_path).position.step == 2
    summary = complete(compiled, tmp_path)
    same_run(summary, tmp_path, uninterrupted)
    assert begin(compiled, tmp_path).position.step == STEPS
    # killed after the last step, before the summary: no step is made, the summary is
    (tmp_path / outputs.SUMMARY).unlink()
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)


def test_sigterm_saves_and_ends(compiled, uninterrupted, tmp_path):
    started = begin(compiled, tmp_path)
    real, calls = started.run.stages.generate, []

    def signalling(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    run = tiny.with_stages(started.run, generate=signalling)
    before = signal.getsignal(signal.SIGTERM)
    assert finish(started._replace(run=run), Console()) is None
    assert signal.getsignal(signal.SIGTERM) is before
    assert begin(compiled, tmp_path).position.step == 3  # not a multiple of `every`
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)


class Heard(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.calls = []

    def on_start(self, folder, step):
        self.calls.append(("start", step))

    def on_step(self, record):
        self.calls.append(("step", record["step"]))

    def on_checkpoint(self, step):
        self.calls.append(("saved", step))

    def on_end(self, summary):
        self.calls.append(("end", summary["steps"]))

    def close(self):
        self.calls.append(("close", 0))


def test_callbacks_hear_of_all_and_a_tracker_gets_each_step_once(
    compiled, uninterrupted, tmp_path, monkeypatch
):
    got = []

    class Memory:
        def __init__(self, folder, run_id, config, after):
            self.run_id = run_id or "first"
            got.append(("open", run_id, after))

        def log(self, step, values):
            got.append((step, values["reward"]))

        def attach(self, files):
            got.append({path.name for path in files})

        def close(self):
            got.append("closed")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Memory)
    monkeypatch.setitem(trackers.CLIENTS, "tensorboard", ("json", "tensorboard"))
    (tmp_path / outputs.CONFIG).write_text("{}", encoding="utf-8")
    heard = Heard()
    with pytest.raises(tiny.Killed):
        dying = killed_in(begin(compiled, tmp_path), "generate", 4)
        finish(dying, Console(), [heard, trackers.Live("tensorboard")])
    steps = [("step", 1), ("step", 2), ("saved", 2), ("step", 3)]
    assert heard.calls == [("start", 0), *steps, ("close", 0)]
    heard.calls.clear()
    summary = finish(begin(compiled, tmp_path), Console(), [heard, trackers.Live("tensorboard")])
    same_run(summary, tmp_path, uninterrupted)
    after = [("step", 3), ("step", 4), ("saved", 4), ("step", 5), ("saved", 5)]
    assert heard.calls == [("start", 2), *after, ("end", 5), ("close", 0)]
    rewards = [(line["step"], line["reward"]) for line in lines(tmp_path)]
    logged = [call for call in got if isinstance(call, tuple)]
    assert [call for call in logged if call[0] != "open"] == rewards
    assert [call for call in logged if call[0] == "open"] == [("open", "", 0), ("open", "first", 3)]
    assert "report.md" in got[-2] and len(got[-2]) > 2 and got[-1] == "closed"


def test_an_error_in_a_callback_ends_a_run_that_can_go_on(compiled, uninterrupted, tmp_path):
    class Failing(Heard):
        def on_step(self, record):
            if record["step"] == 3:
                raise tiny.Killed

    failing, other = Failing(), Heard()
    with pytest.raises(tiny.Killed):
        finish(begin(compiled, tmp_path), Console(), [failing, other])
    assert failing.calls[-1] == other.calls[-1] == ("close", 0)
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)


def test_the_last_ones_and_the_best_are_kept(uninterrupted):
    _, folder = uninterrupted
    accuracy = {r["step"]: r.get("held_out_accuracy") for r in lines(folder)}
    steps = {int(path.name) for path in checkpoint.step_folders(folder / outputs.CHECKPOINTS)}
    assert steps == kept([2, 4, 5], accuracy, CheckpointConfig()) == {2, 4, 5}
    few = CheckpointConfig(keep=1, keep_best=False)
    assert kept([2, 4, 5], {2: 0.9, 4: None, 5: 0.1}, few) == {5}
    assert kept([2, 4, 5], {2: 0.9, 4: 0.9, 5: 0.1}, CheckpointConfig(keep=1)) == {2, 5}


def test_everything_round_trips(compiled, tmp_path):
    """Bits of floats, the random key with its type, and counters."""
    run, state = compiled
    state, _ = tiny.steps(run, state, count=1)
    saver = Saver(tmp_path, CheckpointConfig(), pytest.fail)
    saver.save(state, {"step": 1, "held_out": 0.5})
    before = digest(state)
    for leaf in jax.tree.leaves(state):
        leaf.delete()  # what a donating step does
    saver.close()
    found = read_state(tmp_path / "1", compiled[1], compiled[0].stages.axes, 32, 32)
    assert digest(found) == before
    assert found.key.dtype == compiled[1].key.dtype
    assert jax.tree.structure(found) == jax.tree.structure(compiled[1])
    assert checkpoint.read_meta(tmp_path / "1") == {"step": 1, "held_out": 0.5}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [_truncate, _flip, Path.unlink])
def test_no_harm_to_any_file_goes_unnoticed(uninterrupted, tmp_path, harm):
    _, folder = uninterrupted
    good = folder / outputs.CHECKPOINTS / "4"
    names = [path.relative_to(good) for path in good.rglob("*") if path.is_file()]
    sealed = [name for name in names if name.name not in seal._NOT_SEALED or name.name == seal.SEAL]
    assert len(sealed) >= 5 and seal.damage(good) is None
    for number, name in enumerate(sealed):
        copy = tmp_path / str(number)
        shutil.copytree(good, copy)
        harm(copy / name)
        reason = seal.damage(copy)
        assert reason is not None
        assert name.name in reason or name.name == seal.SEAL


def test_a_foreign_file_is_noticed(uninterrupted, tmp_path):
    copy = tmp_path / "4"
    shutil.copytree(uninterrupted[1] / outputs.CHECKPOINTS / "4", copy)
    (copy / "state" / "theirs").write_text("x")
    assert "state/theirs does not belong" in str(seal.damage(copy))


def test_the_last_good_checkpoint_is_used_and_named(compiled, uninterrupted, tmp_path):
    complete(compiled, tmp_path)
    steps = tmp_path / outputs.CHECKPOINTS
    _flip(next((steps / "5" / "state" / "ocdbt.process_0" / "d").iterdir()))
    (steps / "9").mkdir()  # foreign: somebody else's checkpoint
    assert last_good(steps)[0] == steps / "4"
    run, state = compiled
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=tmp_path))
    found = resume.resume(run, jax.tree.map(jnp.copy, state), tmp_path)
    assert found.position.step == 4
    text = "\n".join(found.notices)
    assert "checkpoints/5 is damaged" in text and "its SHA-256 differs" in text
    assert "checkpoints/9 is damaged" in text and "no SHA256.json" in text
    assert f"continuing after step 4, from {steps / '4'}" in text
    assert (steps / "damaged-5-1").is_dir() and not (steps / "5").exists()
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)


def test_without_a_good_checkpoint_nothing_begins_anew_in_silence(compiled, tmp_path):
    complete(compiled, tmp_path, steps=2)
    _truncate(tmp_path / outputs.CHECKPOINTS / "2" / "meta" / "metadata")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match=r"(?s)no checkpoint.*2: the file meta/metadata.*--restart"
    ):
        begin(compiled, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    shutil.rmtree(tmp_path / outputs.CHECKPOINTS)
    run, state = compiled
    found = resume.resume(run, state, tmp_path)
    assert "has no checkpoint: beginning at step 0" in found.notices[0]
    assert (tmp_path / "earlier-1" / outputs.METRICS).exists()


def test_a_run_killed_before_its_first_checkpoint_begins_anew(compiled, uninterrupted, tmp_path):
    (tmp_path / outputs.METRICS).write_text('{"step": 1}\n{"st')
    half = tmp_path / outputs.CHECKPOINTS / "2.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    found = resume.resume(*compiled, tmp_path)
    assert found.position.step == 0 and "beginning at step 0" in found.notices[0]
    same_run(complete(compiled, tmp_path), tmp_path, uninterrupted)
    assert not half.exists() and not list(tmp_path.glob("earlier-*"))


def test_metrics_that_lost_lines_are_refused(compiled, tmp_path):
    complete(compiled, tmp_path, steps=2)
    path = tmp_path / outputs.METRICS
    text = path.read_text()
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="does not hold the 2 lines"):
        begin(compiled, tmp_path)
    path.write_text(text + '{"step": 3, "half a li')  # what a kill leaves
    assert begin(compiled, tmp_path).position.step == 2
    assert path.read_text() == text


def test_metrics_that_were_edited_are_refused(compiled, tmp_path):
    """One digit of one line, the size unchanged."""
    complete(compiled, tmp_path, steps=2)
    path = tmp_path / outputs.METRICS
    text = path.read_text()
    path.write_text(text.replace('"step": 1,', '"step": 7,', 1))
    with pytest.raises(ValueError, match=r"was changed: it no longer holds the 2 lines.*--restart"):
        begin(compiled, tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="does not hold the 2 lines"):
        begin(compiled, tmp_path)
    path.write_text(text)
    assert begin(compiled, tmp_path).position.step == 2


HOSTILE = [
    {"step": float("nan")},
    {"step": 10**30},
    {"step": 2},  # swapped with another checkpoint
    {"step": None},
    {"step": True},
    {"metrics_bytes": 10**18},
    {"metrics_bytes": -1},
    {"metrics_sha256": "../../etc/passwd"},
    {"elapsed": float("inf")},
    {"elapsed": "soon"},
    {"pool_rows": 10**12},
    {"pool_rows": 5},
    {"prompts": 0},
    {"identity": "../../etc"},
    {"format": 99},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_what_a_checkpoint_says_of_itself_is_checked(compiled, uninterrupted, tmp_path, change):
    """Somebody edited it and made new checksums: the one before it is used, and it is named."""
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[1], folder)
    place = folder / outputs.CHECKPOINTS / "5"
    meta = json.loads((place / "meta" / "metadata").read_text())
    (place / "meta" / "metadata").write_text(json.dumps(meta | change))
    seal.write_seal(place)
    found = begin(compiled, folder)
    assert found.position.step == 4
    assert sorted(path.name for path in (folder / outputs.CHECKPOINTS).iterdir()) == [
        "2",
        "4",
        "damaged-5-1",
    ]


@pytest.mark.parametrize("text", ["[1", "[1]", "", "null", '{"format": 4}'])
def test_a_meta_item_that_is_no_such_thing(compiled, uninterrupted, tmp_path, text):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[1], folder)
    place = folder / outputs.CHECKPOINTS / "5"
    (place / "meta" / "metadata").write_text(text)
    seal.write_seal(place)
    assert begin(compiled, folder).position.step == 4


def test_arrays_that_do_not_fit_are_refused(compiled, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[1], folder)
    shutil.rmtree(folder / outputs.CHECKPOINTS / "5" / "state")
    seal.write_seal(folder / outputs.CHECKPOINTS / "5")
    with pytest.raises(ValueError, match=r"arrays in .*checkpoints/5 do not fit.*--restart"):
        begin(compiled, folder)


def test_another_number_of_prompts_cannot_be_accepted(compiled, uninterrupted):
    task = dataclasses.replace(tiny.TASK, problems=40)
    run = dataclasses.replace(compiled[0], config=tiny.config(**SETTINGS, task=task))
    run = dataclasses.replace(run, task=task.build())
    with pytest.raises(ValueError, match="32 prompts in the checkpoint, 40 now, which nothing"):
        resume.resume(run, compiled[1], uninterrupted[1], ["data", "task"])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"task": dataclasses.replace(tiny.TASK, data_seed=1)}, "data"),
        ({"task": dataclasses.replace(tiny.TASK, data_seed=1)}, "task.data_seed"),
        ({"model": dataclasses.replace(tiny.MODEL, width=16)}, "policy"),
        ({"selector": tiny.config().selector.__class__(decay=0.7)}, "selector.decay"),
        (
            {"grpo": dataclasses.replace(tiny.config().grpo, learning_rate=1.0)},
            "grpo.learning_rate",
        ),
    ],
)
def test_another_run_is_refused_with_the_differences(compiled, uninterrupted, changes, name):
    run = dataclasses.replace(compiled[0], config=tiny.config(**{**SETTINGS, **changes}))
    if "task" in changes:
        run = dataclasses.replace(run, task=changes["task"].build())
    if "model" in changes:
        run = dataclasses.replace(run, policy=changes["model"].policy(19))
    _, folder = uninterrupted
    with pytest.raises(ValueError, match=rf"(?s)differs from this one.*\n  {name}: .*--allow"):
        resume.resume(run, compiled[1], folder)
    saved = checkpoint.read_meta(folder / outputs.CHECKPOINTS / "5")["identity"]
    assert differences(saved, identity(run))
    assert not differences(saved, identity(run), ["seed", "data", "policy", "task", "model",
                                                  "selector", "grpo"])  # fmt: skip
    assert differences(saved, identity(run), ["steps"])


def test_what_does_not_change_the_run_may_change(compiled, uninterrupted):
    free = tiny.config(
        **{
            **SETTINGS,
            "steps": 50,
            "mesh": MeshConfig(data=2),
            "checkpoint": CheckpointConfig(every=7, minutes=1.0, keep=9, on_nonfinite="stop"),
            "evaluation": EvaluationConfig(every=5, problems=6, samples=2),
        }
    )
    run = dataclasses.replace(compiled[0], config=free)
    assert identity(run) == identity(compiled[0])
