"""The kept sample of responses: which, how much of them, and through a kill."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dpsjax.loop.metrics import read_records
from dpsjax.loop.responses import Response, Sample, choose, line_of, shortened
from dpsjax.loop.rollout import score_rollouts
from dpsjax.policy import Rollouts
from dpsjax.report.response_file import append_responses, begin_responses, read_responses
from dpsjax.run import outputs, resume
from dpsjax.run.run import Started, finish
from dpsjax.tasks.base import Problem, Score
from tests.run import tiny

SAMPLE = Sample(prompts=2, each=2, characters=100)


def made(*prompts):
    return [Response(prompt, f"{place}", 1, False, None) for place, prompt in enumerate(prompts)]


def test_the_same_prompts_come_back():
    pool = range(200)
    favourite = choose(made(*pool), Sample(1, 1, 9))[0].prompt
    for others in (pool, reversed(pool), range(favourite, 200)):
        assert choose(made(*others), Sample(1, 1, 9))[0].prompt == favourite
    counts = [len(choose(made(*[7] * 5, *[8] * 5), Sample(p, e, 9))) for p, e in ((1, 3), (2, 9))]
    assert counts == [3, 10] and choose(made(1, 2), Sample(0, 1, 9)) == []


def test_no_prompt_is_favoured_by_its_place():
    """Of many batches of 16 consecutive prompts, each place is chosen about as often."""
    chosen = [
        choose(made(*range(first, first + 16)), Sample(1, 1, 9))[0].prompt - first
        for first in range(0, 16 * 2000, 16)
    ]
    counts = np.bincount(chosen, minlength=16)
    spread = ((counts - 125) ** 2 / 125).sum()  # chi-squared, 15 degrees of freedom
    assert spread < 44  # 1e-4


def test_a_line_says_all_of_it():
    problem = Problem("1+1?", 2, "sums")
    text = "x" * 90 + "é\u2028" * 20
    right = Response(3, text, 7, True, Score(0.5, False, "wrong value", "11"))
    line = json.loads(json.dumps(line_of(4, "train", problem, right, 100)))
    assert line.pop("response") == shortened(text, 100) != text
    assert line == {
        "step": 4,
        "split": "train",
        "prompt": 3,
        "source": "sums",
        "question": "1+1?",
        "tokens": 7,
        "truncated": True,
        "reward": 0.5,
        "correct": False,
        "answer": "11",
        "reason": "wrong value",
    }
    lost = line_of(4, "train", problem, right._replace(score=None), 100)
    assert {lost[name] for name in ("reward", "correct", "answer", "reason")} == {None}


def test_steps_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [{"step": step, "response": "a\u2028b\nc"} for step in (0, 1, 1, 2, 3)]
    with path.open("w", encoding="utf-8") as stream:
        append_responses(stream, rows)
        stream.write('{"step": 1, "resp')  # what a kill leaves
    assert read_responses(path) == rows
    begin_responses(path, 2)
    assert read_responses(path) == rows[:4]
    begin_responses(path, 0)  # before the first step even the first evaluation is made again
    assert path.read_bytes() == b""


def test_truncated_is_what_has_no_end(prepared):
    task = prepared[0].task
    end, one = task.tokenizer.eos_id, task.tokenizer.encode("1")[0]
    tokens = np.array([[[one, end, 0], [one, one, end], [one, one, one]]], np.int32)
    mask = np.array([[[1, 1, 0], [1, 1, 1], [1, 1, 1]]], bool)
    zeros = jnp.zeros(tokens.shape, jnp.float32)
    rollouts = Rollouts(jnp.asarray(tokens), jnp.asarray(mask), zeros, jnp.int32(3))
    index = jnp.array([5], jnp.int32)
    found = score_rollouts(task, task.train, index, rollouts).responses
    assert [(r.text, r.tokens, r.truncated) for r in found] == [
        ("1", 2, False),
        ("11", 3, False),
        ("111", 3, True),
    ]
    assert {r.prompt for r in found} == {5}


ALL = Sample(prompts=99, each=99, characters=4000)


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    return _train(prepared, tmp_path_factory.mktemp("responses") / "whole", 4)


def _train(prepared, folder, steps, sample=ALL):
    run, state = prepared
    config = dataclasses.replace(run.config, out=folder, steps=steps)
    run = dataclasses.replace(run, config=config, sample=sample)
    folder.mkdir(exist_ok=True)
    found = resume.resume(run, jax.tree.map(jnp.copy, state), folder)
    finish(Started(run, found.state, found.position, finished=False), Console())
    return folder


def test_every_step_and_every_evaluation_is_sampled(prepared, whole):
    rows = read_responses(whole / outputs.RESPONSES)
    train = prepared[0].task.train
    for split, first in (("train", 1), ("held-out", 0), ("held-out greedy", 0)):
        assert [s for s, _ in _by_step(rows, split)] == list(range(first, 5))
    assert all(
        row["question"] == train[row["prompt"]].prompt for _, of in _by_step(rows) for row in of
    )
    assert all(len(of) == 6 * 2 for _, of in _by_step(rows, "held-out"))
    assert all(len(of) == 6 for _, of in _by_step(rows, "held-out greedy"))


def test_truncated_counts_on_the_devices_what_the_host_sees(whole):
    rows, records = (
        read_responses(whole / outputs.RESPONSES),
        read_records(whole / outputs.METRICS),
    )
    cut = [sum(row["truncated"] for row in of) for _, of in _by_step(rows)]
    assert cut == [record["truncated"] for record in records] and sum(cut) > 0
    assert all(len(of) == 4 * tiny.GROUP for _, of in _by_step(rows))
    held_out = [
        sum(row["truncated"] for row in rows if row["split"] != "train" and row["step"] == step)
        for step in range(5)
    ]
    assert held_out[1:] == [record["held_out_truncated"] for record in records]
    assert held_out[0] == records[0]["held_out_before_truncated"] > 0


def test_rewards_of_the_lines_are_those_of_the_steps(whole):
    rows, records = (
        read_responses(whole / outputs.RESPONSES),
        read_records(whole / outputs.METRICS),
    )
    for record, (_, of) in zip(records, _by_step(rows), strict=True):
        assert np.isclose(np.mean([row["reward"] for row in of]), record["reward"])


def _by_step(rows, split="train"):
    rows = [row for row in rows if row["split"] == split]
    return [
        (step, [row for row in rows if row["step"] == step])
        for step in sorted({row["step"] for row in rows})
    ]


def test_a_resumed_run_writes_the_same(prepared, whole, tmp_path):
    cut = _train(prepared, tmp_path / "cut", 2)
    with (cut / outputs.RESPONSES).open("a") as stream:  # what a kill leaves
        stream.write('{"step": 3, "split": "train"}\n{"step": 3, "spl')
    _train(prepared, cut, 4)
    assert (cut / outputs.RESPONSES).read_bytes() == (whole / outputs.RESPONSES).read_bytes()


def test_keeping_none_is_an_empty_file(prepared, tmp_path):
    folder = _train(prepared, tmp_path / "none", 1, Sample(0, 1, 10))
    assert (folder / outputs.RESPONSES).read_bytes() == b""
