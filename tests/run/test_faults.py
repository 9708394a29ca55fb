"""Each fault is put in: the run goes on, counts it and says so once, or stops as asked."""

import dataclasses
import errno
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dpsjax.loop.evaluate import make_evaluate, uniform_slice
from dpsjax.loop.metrics import add_held_out, read_records
from dpsjax.loop.scoring import score_safely
from dpsjax.loop.state import digest
from dpsjax.loop.step import train_step
from dpsjax.run import checkpoint, outputs, reproducer
from dpsjax.run.checkpoint import Saver, last_good, one_report
from dpsjax.run.config import CheckpointConfig
from dpsjax.run.faults import NonFiniteError, Notices
from dpsjax.run.position import Position
from dpsjax.run.run import Started, finish
from dpsjax.run.selector_settings import settings
from dpsjax.tasks.base import Score
from dpsjax.tasks.workers import ScoringWorkers
from tests.run import tiny


def one_step(run, state):
    """A step from a copy: state, record, what it was made of, what was said."""
    said = []
    state, record, step = train_step(run, jax.tree.map(jnp.copy, state))
    notices = Notices(said.append)
    for _ in range(2):
        notices.look(record, step.errors)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
    return state, record, step, said


def scored_by(prepared, score):
    run, state = prepared
    return dataclasses.replace(run, task=dataclasses.replace(run.task, score=score)), state


def first_draw(run, state):
    selector = jax.tree.map(jnp.copy, state.selector)
    return run.stages.select(selector, state.key, state.step, run.prompts)[0]


def only_first_fails(problems, responses):
    """Raises on the first problem that it ever saw."""
    if any(problem is only_first_fails.problem for problem in problems):
        raise RuntimeError("worker died")
    return tiny.easy_score(problems, responses)


def test_a_reward_function_that_raises_loses_only_its_group(prepared):
    run, state = prepared
    first = int(first_draw(run, state).index[0])
    only_first_fails.problem = run.task.train[first]
    _, record, _, said = one_step(*scored_by(prepared, only_first_fails))
    assert record["groups"]["trials"] == [0, *[tiny.GROUP] * 3]
    assert record["groups"]["state"][0] == -1
    assert (record["reward_errors"], record["invalid_rollouts"]) == (1, tiny.GROUP)
    assert "RuntimeError: worker died" in said[0] and len(said) == len(set(said))
    assert any("1 of 4 groups have no valid rollout" in text for text in said)


def _dies(problems, responses):
    """A real worker process, gone in the middle of its work."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(os._exit, 1).result()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (_dies, "BrokenProcessPool: A process in the process pool was terminated"),
        (lambda problems, responses: [Score(1.0, True, "")] * 3, "3 scores came back for"),
        (lambda problems, responses: [], "0 scores came back for"),
        (lambda problems, responses: [None] * len(responses), "AttributeError"),
        (lambda problems, responses: [Score("one", True, "")] * len(responses), "TypeError"),
    ],
)
def test_a_verifier_that_fails_altogether_teaches_nothing(prepared, score, message):
    run, start = scored_by(prepared, score)
    state, record, _, said = one_step(run, start)
    assert record["invalid_rollouts"] == 4 * tiny.GROUP and record["reward_errors"] == 4
    assert record["skipped_empty"] == 1 and record["effective_ratio"] == 0
    assert message in said[0]
    assert digest(state.params) == digest(start.params)
    assert digest(state.opt_state) == digest(start.opt_state)
    assert int(state.step) == 1
    again, _ = tiny.steps(run, state, count=1)
    assert int(again.step) == 2


def hang_on_one(problems, responses):
    """A verifier, for another process, that never answers on the problem that HANG names."""
    if problems[0].prompt == os.environ["HANG"]:
        time.sleep(1000)
    return tiny.easy_score(problems, responses)


def test_a_worker_that_hangs_loses_only_its_group(prepared, monkeypatch):
    run, state = prepared
    draw = first_draw(run, state)
    monkeypatch.setenv("HANG", run.task.train[int(draw.index[1])].prompt)
    workers = ScoringWorkers(hang_on_one, count=1, seconds=2.0)
    _, record, _, said = one_step(*scored_by(prepared, workers))
    workers.close()
    assert record["groups"]["trials"] == [tiny.GROUP, 0, tiny.GROUP, tiny.GROUP]
    assert (record["reward_errors"], record["invalid_rollouts"]) == (1, tiny.GROUP)
    assert "no answer within 2.0 seconds, the worker was killed" in said[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rewards_that_are_not_finite_are_no_rewards(prepared, bad):
    def broken(problems, responses):
        scores = tiny.easy_score(problems, responses)
        return [s._replace(reward=bad) if i < tiny.GROUP else s for i, s in enumerate(scores)]

    _, record, _, said = one_step(*scored_by(prepared, broken))
    assert record["groups"]["trials"] == [0, *[tiny.GROUP] * 3]
    assert record["invalid_rollouts"] == tiny.GROUP and record["reward_errors"] == 0
    assert f"{tiny.GROUP} rewards are not finite" in said[0]
    assert np.isfinite(record["reward"]) and record["skipped_nonfinite"] == 0


def test_all_alike_rewards_teach_the_belief_alone(prepared):
    def solved(problems, responses):
        return [Score(1.0, True, "")] * len(responses)

    run, start = scored_by(prepared, solved)
    state, record, _, said = one_step(run, start)
    assert record["groups_in_loss"] == 0 and record["skipped_empty"] == 1
    assert record["all_right"] == 4 and "nothing to learn" in said[0]
    assert digest(state.params) == digest(start.params)
    assert digest(state.selector) != digest(start.selector)


@pytest.mark.parametrize("left", [0, 3])
def test_an_exhausted_pool_gives_a_short_batch(prepared, left):
    run, state = prepared
    rows = jnp.arange(32, dtype=jnp.int32) < left
    state = state._replace(selector=state.selector._replace(active=rows))
    after, record, _, said = one_step(run, state)
    assert len(record["groups"]["prompt"]) == left and record["short_batch"] == 4 - left
    assert f"{4 - left} prompts too few" in said[0]
    assert int(after.position) == left
    if left == 0:
        assert record["skipped_empty"] == 1 and digest(after.params) == digest(state.params)


def with_bad_log_probs(run, at_call: int, value: float):
    """A run whose sampler reports a log-probability that is not finite, in one step."""
    real, calls = run.stages.generate, []

    def generate(*arguments):
        calls.append(1)
        rollouts = real(*arguments)
        if len(calls) != at_call:
            return rollouts
        return rollouts._replace(log_probs=jnp.full_like(rollouts.log_probs, value))

    return tiny.with_stages(run, generate=generate)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_log_probability_that_is_not_finite_skips_the_step(prepared, tmp_path, value):
    run, start = prepared
    bad = with_bad_log_probs(run, 1, value)
    state, record, step, said = one_step(bad, start)
    assert record["skipped_nonfinite"] == 1
    assert digest(state.params) == digest(start.params)
    assert digest(state.opt_state) == digest(start.opt_state)
    assert "not finite" in said[0] and "(skipped_nonfinite)" in said[0]
    path = reproducer.write(tmp_path, state, 1, step.batch)
    found = reproducer.read(path)
    assert digest(found.key) == digest(start.key) and found.step == 1
    assert found.batch.index.tolist() == record["groups"]["prompt"]
    assert found.batch.tokens.shape == (4, tiny.GROUP, 8)
    assert np.isnan(found.batch.log_probs).all()
    again = reproducer.repeat(path, run, start)
    assert int(again.skipped_nonfinite) == 1 and not np.isfinite(again.loss)
    # the fault is in the batch: with sound log-probabilities the same update is finite
    sound = step.batch._replace(log_probs=jnp.full_like(step.batch.log_probs, -1.0))
    other = reproducer.repeat(reproducer.write(tmp_path, state, 2, sound), run, start)
    assert int(other.skipped_nonfinite) == 0 and np.isfinite(other.loss)
    for number in range(3, 6):
        reproducer.write(tmp_path, state, number, step.batch)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_a_reproducer_that_is_something_else_is_refused(tmp_path, prepared):
    path = tmp_path / "step-1.npz"
    with pytest.raises(FileNotFoundError):
        reproducer.read(path)
    path.write_text("no arrays")
    with pytest.raises(ValueError, match=r"path='.*step-1.npz' is no reproducer"):
        reproducer.read(path)
    np.savez(path, step=np.array([{"pickled": "object"}], dtype=object))
    with pytest.raises(ValueError, match="is no reproducer"):
        reproducer.read(path)


def test_parameters_that_are_not_finite_never_spread(prepared):
    """NaN weights: every loss is NaN, every step is skipped, none crashes."""
    run, start = prepared
    state = jax.tree.map(jnp.copy, start)
    state = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    after, record, _ = train_step(run, state)
    assert record["skipped_nonfinite"] + record["skipped_empty"] == 1
    assert digest(after.opt_state) == digest(start.opt_state)


def follow(prepared, folder: Path, **changes):
    """``run.finish`` in a folder, from the first state."""
    run, state = prepared
    folder.mkdir(exist_ok=True)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=folder, **changes))
    return finish(Started(run, jax.tree.map(jnp.copy, state), Position(), False), Console())


def test_stopping_at_the_first_step_that_is_not_finite(prepared, tmp_path, capsys):
    run, state = prepared
    bad = with_bad_log_probs(run, 3, float("nan"))  # after the evaluation's own
    bad = dataclasses.replace(bad, evaluation=run.evaluation)
    each = CheckpointConfig(every=1, on_nonfinite="stop")
    with pytest.raises(NonFiniteError, match=r"step 3.*step-3.npz.*repeat.*--on-nonfinite skip"):
        follow((bad, state), tmp_path, steps=4, checkpoint=each)
    good, damaged = last_good(tmp_path / outputs.CHECKPOINTS)
    assert good is not None and good.name == "2" and not damaged  # the state before it
    assert (tmp_path / outputs.FAULTS / "step-3.npz").exists()
    # skipping instead: the same fault, and the run ends
    bad = dataclasses.replace(with_bad_log_probs(run, 3, float("nan")), evaluation=run.evaluation)
    summary = follow((bad, state), tmp_path / "on", steps=4, checkpoint=CheckpointConfig(every=1))
    assert summary["steps"] == 4 and summary["skipped_nonfinite"] == 1
    assert capsys.readouterr().out.count("loss or gradient is not finite") == 2


@pytest.mark.parametrize("on_error", ["continue", "stop"])
def test_a_full_disk_leaves_the_earlier_checkpoint(
    prepared, tmp_path, monkeypatch, capsys, on_error
):
    real = checkpoint.write_seal

    def full(folder: Path) -> None:
        if folder.name.startswith("2"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(folder)

    monkeypatch.setattr(checkpoint, "write_seal", full)
    settings = CheckpointConfig(every=1, keep=1, keep_best=False, on_error=on_error)
    if on_error == "stop":
        with pytest.raises(OSError, match=r"step 2 could not be written.*No space left.*step 1"):
            follow(prepared, tmp_path, steps=4, checkpoint=settings)
        assert last_good(tmp_path / outputs.CHECKPOINTS)[0].name == "1"
        return
    summary = follow(prepared, tmp_path, steps=3, checkpoint=settings)
    shown = capsys.readouterr().out
    assert "step 2 could not be written" in shown and "No space left" in shown
    assert "step 1 is kept; training goes on" in shown
    assert summary["steps"] == 3 and len(read_records(tmp_path / outputs.METRICS)) == 3
    names = {path.name for path in (tmp_path / outputs.CHECKPOINTS).iterdir()}
    assert names == {"3"}  # written once there was room; nothing half written is left


@one_report()
def test_a_disk_that_is_really_full(prepared, disk):
    """The first checkpoint fits, the second does not; with room again the third does."""
    state, said, small_disk = prepared[1], [], disk("1m")
    saver = Saver(small_disk, CheckpointConfig(keep=3), said.append)
    saver.save(state, {"step": 1, "held_out": None})
    saver.wait()
    assert saver.last == 1 and not said
    room = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * max(room.f_bavail * room.f_bsize - 20_000, 0))
    saver.save(state, {"step": 2, "held_out": None})
    saver.wait()
    assert len(said) == 1 and "step 2 could not be written" in said[0] and "1 is kept" in said[0]
    assert [path.name for path in checkpoint.step_folders(small_disk)] == ["1"]
    assert last_good(small_disk)[0].name == "1"
    filler.unlink()
    saver.save(state, {"step": 3, "held_out": None})
    saver.close()
    assert last_good(small_disk)[0].name == "3" and len(said) == 1


def test_scoring_nothing_is_no_fault(prepared):
    assert score_safely(prepared[0].task, [], []) == ([], [])


def test_a_pool_that_is_all_solved_comes_back():
    """Every prompt leaves for good once it is solved: when none is left, all return."""
    run, state = tiny.easy_run(
        tiny.config(selector=settings("history-resampling", exclude="forever"))
    )
    right = [Score(1.0, True, "")]
    run, state = scored_by((run, state), lambda problems, responses: right * len(responses))
    after, records = tiny.steps(run, state, count=10)  # the pool is through after 8
    assert [record["coverage"] for record in records] == [4, 8, 12, 16, 20, 24, 28, 32, 32, 32]
    assert all(record["short_batch"] == 0 for record in records)
    assert all(record["skipped_empty"] == 1 for record in records)
    assert digest(after.params) == digest(state.params)


def test_held_out_responses_without_a_verdict_are_counted(prepared):
    run, state = prepared
    assert run.evaluation.accuracy(state.params).unscored == 0
    held_out = uniform_slice(run.task.test, run.config.evaluation.problems)

    def lost(problems, responses):
        scores = tiny.easy_score(problems, responses)
        bad = Score(float("nan"), True, "")
        return [bad if p is held_out[0] else s for p, s in zip(problems, scores, strict=True)]

    task = dataclasses.replace(run.task, score=lost)
    temperatures, generate = [1.0] * (tiny.GROUP - 1), run.stages.generate
    found = make_evaluate(task, held_out, generate, temperatures, 4, run.mesh, state.key)
    record = {}
    add_held_out(record, found.accuracy(state.params))
    assert record["held_out_unscored"] == tiny.GROUP  # all of one problem's
