"""`dpsjax doctor`: every kind of log is read as the same groups, and what is planted is found."""

import csv
import json

import numpy as np
import pytest

from dpsjax.cli import main
from dpsjax.lab.doctor import diagnosis
from dpsjax.lab.doctor.command import page
from dpsjax.lab.doctor.logs import read_log
from dpsjax.tasks.traces import make_trace, write_trace

GROUP = 4


def groups(steps=6, prompts=8):
    """Prompts 0-1 always fail, 6-7 always pass, the others are mixed; all of them in every step."""
    passes = [0, 0, 1, 2, 2, 3, GROUP, GROUP][:prompts]
    return [(step, prompt, p, GROUP) for step in range(steps) for prompt, p in enumerate(passes)]


def rollouts(name, reward, **more):
    for step, prompt, passes, trials in groups():
        for place in range(trials):
            row = {"step": step, name: f"prompt {prompt}", reward: float(place < passes)}
            yield row | {key: value(prompt, place) for key, value in more.items()}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ours(folder):
    keys = ("step", "prompt", "passes", "trials")
    rows = [dict(zip(keys, g, strict=True)) | {"length": 1.0, "policy": g[0]} for g in groups()]
    write_trace(folder / "trace.jsonl", make_trace(8, rows))
    return folder / "trace.jsonl"


def table(folder):
    with (folder / "log.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "prompt", "passes", "trials"])
        writer.writerows(groups())
    return folder / "log.csv"


def verl(folder):
    """A folder with a file a step, as `trainer.rollout_data_dir` leaves it."""
    (folder / "dump").mkdir()
    rows = list(rollouts("input", "score", output=lambda *_: "text", gts=lambda *_: "1"))
    for step in range(6):
        write_lines(folder / "dump" / f"{step}.jsonl", [r for r in rows if r["step"] == step])
    return folder / "dump"


def prime(folder):
    return write_lines(folder / "rollouts.jsonl", rollouts("example_id", "reward"))


def trl(folder):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    more = {"completion": lambda *_: "text", "advantage": lambda *_: 0}
    rows = list(rollouts("prompt", "is_right", **more))
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), folder / "completions.parquet")
    return folder / "completions.parquet"


@pytest.mark.parametrize("kind", [ours, table, verl, prime, trl])
def test_every_kind_is_the_same_groups(kind, tmp_path):
    log = read_log(kind(tmp_path))
    found = sorted(zip(log.step, log.prompt, log.passes, log.trials, strict=True))
    assert found == sorted(groups())
    assert len(log.names) == 8 and log.no_verdict == 0


def test_what_is_planted_is_found(tmp_path):
    rows = list(rollouts("prompt", "accuracy", pred=lambda prompt, _: "4" if prompt else ""))
    for place, row in enumerate(rows):
        row["reward"] = row["accuracy"]
        if row["prompt"] == "prompt 0":  # judged by their form alone
            row["reward"] = 0.1 * (place % 2)
    rows.append(rows[-1] | {"accuracy": None, "reward": None})
    rows = [r for r in rows if (r["step"], r["prompt"]) != (5, "prompt 3")] + rows[-5:-3]
    log = read_log(write_lines(tmp_path / "log.jsonl", rows))
    assert log.no_verdict == 1
    assert [log.names[i] for i in diagnosis.never_solved(log)] == ["prompt 0", "prompt 1"]
    assert diagnosis.only_shaped(log) == 6
    assert np.nanmean(log.parsed) == pytest.approx(1 - 6 / 47)
    shown = page(log, "log")
    assert "2 prompts were never solved in 3 or more groups; they took 48 rollouts" in shown
    assert "6 groups of one verdict whose rewards differ" in shown
    assert "1 rollouts without a reward" in shown
    assert "parse to nothing" in shown


def test_duplicates_and_incomplete_groups(tmp_path):
    rows = [{"step": 0, "prompt": f"{i}", "reward": i % 2} for i in range(5) for _ in range(4)]
    rows += [*rows[:4], {"step": 0, "prompt": "short", "reward": 1}]
    log = read_log(write_lines(tmp_path / "log.jsonl", rows))
    assert diagnosis.repeated(log) == 4
    assert diagnosis.incomplete(log) == 1


def test_shares_over_time_have_intervals(tmp_path):
    periods = diagnosis.over_time(read_log(table(tmp_path)))
    assert [name for name, *_ in periods] == ["0-1", "2", "3", "4", "5"]
    for _, wrong, mixed, right in periods:
        assert (wrong.value, mixed.value, right.value) == (0.25, 0.5, 0.25)
        assert wrong.low < 0.25 < wrong.high
    wilson = diagnosis.share(
        4, 16
    )  # by hand: (p + z^2/2n -+ z sqrt(pq/n + z^2/4n^2)) / (1 + z^2/n)
    z, p, n = 1.959964, 0.25, 16
    half = z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    ends = [(p + z**2 / 2 / n + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    np.testing.assert_allclose(wilson[1:], ends, rtol=1e-6)


def test_the_replay_finds_what_a_belief_knows(tmp_path):
    """Half of the prompts are always mixed: a belief that saw them once picks those alone."""
    log = read_log(table(tmp_path))
    found = diagnosis.replay(log, diagnosis.contenders(GROUP)["dps"])
    assert (found.effective, found.saved, found.low, found.high) == (1.0, 0.5, 0.5, 0.5)


def test_nothing_is_promised_where_no_prompt_comes_twice(tmp_path):
    rows = [{"prompt": f"{i}", "reward": j % 2, "step": i} for i in range(6) for j in range(4)]
    log = read_log(write_lines(tmp_path / "log.jsonl", rows))
    assert diagnosis.replay(log, diagnosis.contenders(GROUP)["dps"]) is None
    assert "No prompt comes twice" in page(log, "log")


def test_the_command(tmp_path, capsys):
    assert main(["doctor", str(table(tmp_path)), "--out", str(tmp_path / "page.md")]) == 0
    shown = capsys.readouterr().out
    assert "96 rollouts (50%) are in groups that all failed or all passed" in shown
    assert "| dps | 100% | 50% [50%, 50%] |" in shown
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == shown


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "prompt,passes\n1,2\n", "must name the columns"),
        ("a.csv", "prompt,passes,trials\nq,x,4\n", "line 2: no integers"),
        ("a.csv", "prompt,passes,trials\nq,5,4\n", r"passes must lie in 0\.\.trials"),
        ("a.csv", "prompt,passes,trials\n", "holds no group"),
        ("a.jsonl", "", "holds no rollout"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.jsonl", "[1]", "must be a JSON object"),
        ("a.jsonl", '{"reward": 1}', "none of prompt_id"),
        ("a.jsonl", '{"prompt": "a"}', "none of accuracy"),
        ("a.txt", "", "holds no .jsonl"),
    ],
)
def test_what_is_no_log_is_named(name, text, message, tmp_path, capsys):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_log(tmp_path / name)
    assert main(["doctor", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err
