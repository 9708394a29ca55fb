"""The trace, the table of prompts and the report that a run leaves behind."""

import csv
import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dpsjax import selectors
from dpsjax.lab import simulate as lab
from dpsjax.lab import traces
from dpsjax.lab.contenders import Contender
from dpsjax.loop.metrics import read_records
from dpsjax.report import prompt_table
from dpsjax.report.report import write_report
from dpsjax.report.trace_file import trace_rows
from dpsjax.run import outputs, resume
from dpsjax.run.config import RolloutConfig
from dpsjax.run.run import Started, finish
from dpsjax.tasks.base import Problem
from tests.run import tiny


def groups(step, *seen):
    """A record of ``(prompt, passes, trials, length)``."""
    names = ("prompt", "passes", "trials", "length")
    return {
        "step": step,
        "groups": dict(zip(names, map(list, zip(*seen, strict=True)), strict=True)),
    }


RECORDS = [
    groups(1, (0, 4, 4, 8.0), (1, 0, 4, 2.0), (2, 0, 4, 5.0)),
    groups(2, (0, 2, 4, 8.0), (1, 0, 4, 2.0), (3, 0, 0, 0.0)),
    groups(3, (0, 0, 4, 8.0), (1, 0, 4, 2.0), (2, 1, 4, 5.0)),
]
PROBLEMS = tuple(Problem(f"ask {n}|`", {}, "a" if n < 2 else "b") for n in range(5))


def table():
    belief = np.linspace(0, 1, 15).reshape(3, 5)
    visits = prompt_table.histories(RECORDS, 5)
    return prompt_table.prompt_table(PROBLEMS, visits, belief), visits


def test_what_is_known_of_each_prompt():
    found, _ = table()
    assert found.visits == [3, 3, 2, 0, 0]  # a group without a valid rollout shows nothing
    assert found.last_rate == [0.0, 0.0, 0.25, None, None]
    assert found.previous_rate == [0.5, 0.0, 0.0, None, None]
    assert found.best_rate == [1.0, 0.0, 0.25, None, None]
    assert found.first_step == [1, 1, 1, None, None]
    assert found.last_step == [3, 3, 3, None, None]
    assert found.belief[1] == pytest.approx([1 / 14, 6 / 14, 11 / 14], abs=1e-6)
    assert prompt_table.hardest(found) == [1, 2, 0]
    assert prompt_table.stuck(found) == [1]
    assert prompt_table.regressed(found) == [0]


def test_the_table_as_csv_and_as_parquet(tmp_path, monkeypatch):
    found, _ = table()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pyarrow", None)
        path = prompt_table.write_table(tmp_path, found)
    assert path.name == "prompts.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["visits"]) for row in rows] == found.visits
    assert [row["last_rate"] for row in rows] == ["0.0", "0.0", "0.25", "", ""]
    assert [float(rows[1][f"belief_{k}"]) for k in range(3)] == found.belief[1]
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    path = prompt_table.write_table(tmp_path, found)
    assert path.name == "prompts.parquet" and not (tmp_path / "prompts.csv").exists()
    assert parquet.read_table(path).to_pydict() == found._asdict()


SUMMARY = {
    "accuracy_before": 0.1,
    "accuracy_after": 0.2,
    "greedy_before": 0.15,
    "greedy_after": 0.25,
    "accuracy_before_by_temperature": {"0": 0.15, "0.5": 0.18, "1": 0.1},
    "steps": 3,
    "rollouts": 36,
    "truncated": 9,
}


def test_the_report_tells_learning_from_sharpening(tmp_path):
    found, visits = table()

    def overview(**changes):
        summary = {**SUMMARY, **changes}
        write_report(tmp_path / "r.md", "A run", summary, PROBLEMS, found, visits, "p.png")
        return (tmp_path / "r.md").read_text(encoding="utf-8")

    assert "reaches 0.180 at its best temperature, 0.5 (tried: 0, 0.5, 1)" in overview()
    assert "9 responses (25.0%) had no end within their limit" in overview()
    assert "ends 0.020 above that, which is learned" in overview()
    sharpened = overview(accuracy_after=0.17)
    assert "ends 0.010 below that, so a lower temperature would have done" in sharpened


def test_the_report_names_prompts_with_their_text(tmp_path):
    found, visits = table()
    write_report(tmp_path / "r.md", "A run", SUMMARY, PROBLEMS, found, visits, "p.png")
    text = (tmp_path / "r.md").read_text()
    assert "2 were never visited; at their last visit 2 were all wrong, 1 mixed" in text
    hardest, stuck, regressed = text.split("\n## ")[1:]
    assert "| 1 | `a` | 3 | 0/12 | 0/4, 0/4, 0/4 (step 3) | `ask 1/'` |" in hardest
    assert stuck.count("\n| ") == 2 and "| 1 |" in stuck  # the head and one prompt
    assert "| 0 | `a` | 3 | 6/12 | 4/4, 2/4, 0/4 (step 3) |" in regressed


def test_rounds_that_ask_a_prompt_twice_make_one_row():
    record = groups(7, (4, 1, 4, 10.0), (5, 0, 0, 0.0), (4, 3, 2 + 1, 3.0))
    assert list(trace_rows(record)) == [
        {"step": 6, "prompt": 4, "passes": 4, "trials": 7, "length": 7.0, "policy": 6}
    ]


def begin(prepared, folder, steps):
    run, state = prepared
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=folder, steps=steps))
    folder.mkdir(exist_ok=True)
    found = resume.resume(run, jax.tree.map(jnp.copy, state), folder)
    return finish(Started(run, found.state, found.position, finished=False), Console())


def test_a_run_writes_them_and_a_resumed_run_the_same(prepared, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    begin(prepared, whole, 4)
    begin(prepared, cut, 2)
    with (cut / outputs.TRACE).open("a") as stream:  # what a kill leaves
        stream.write('{"step": 2, "prompt": 1, "passes": 0, "trials": 4, "len')
    begin(prepared, cut, 4)
    assert (cut / outputs.TRACE).read_bytes() == (whole / outputs.TRACE).read_bytes()
    trace, records = traces.read_trace(whole / outputs.TRACE), read_records(whole / outputs.METRICS)
    assert trace.num_prompts == 32 and len(trace.step) == 4 * 4
    for record in records:
        here = trace.step == record["step"] - 1
        assert trace.prompt[here].tolist() == record["groups"]["prompt"]
        assert trace.passes[here].tolist() == record["groups"]["passes"]
        assert (trace.trials[here] == tiny.GROUP).all() and (
            trace.policy[here] == record["step"] - 1
        ).all()
        total = (trace.length[here] * trace.trials[here]).sum()
        assert total == pytest.approx(record["tokens"], abs=0.1)
    assert (whole / outputs.REPORT).read_text() == (cut / outputs.REPORT).read_text().replace(
        str(cut), str(whole)
    )
    assert os.path.getsize(whole / outputs.PLOTS / "prompts.png") > 5000
    assert any((whole / name).exists() for name in outputs.TABLES)


@pytest.mark.slow
def test_a_run_on_its_whole_pool_is_replayed_without_a_model(tmp_path):
    size, rounds = 8, 2
    task = dataclasses.replace(tiny.TASK, problems=size)
    settings = tiny.config(task=task, rollout=RolloutConfig(prompts=size), steps=rounds)
    begin(tiny.easy_run(settings), tmp_path, rounds)
    trace = traces.read_trace(tmp_path / outputs.TRACE)
    setting = lab.Setting(pool=size, batch=3, rollouts=tiny.GROUP, steps=rounds)
    student = traces.recorded(trace)
    contender = Contender(selectors.dps())
    run = lab.simulate(contender, student, jax.random.key(0), setting, record=True)
    for step in range(rounds):
        truth = dict(zip(*(column[trace.step == step] for column in trace[2:4]), strict=True))
        for prompt, passes in zip(run.groups.index[step], run.groups.passes[step], strict=True):
            assert truth[int(prompt)] == int(passes)
