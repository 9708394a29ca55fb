"""The command: table, sentence, JSON, pictures; and errors that speak."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from dpsjax import cli, selectors
from dpsjax.lab import command, compare, contenders, students
from dpsjax.lab.simulate import Contender, Setting, simulate
from dpsjax.lab.traces import make_trace, write_trace

STUDENT = students.student(students.limited_lessons(), 20)
SMALL = Setting(pool=60, batch=6, rollouts=4, steps=2)


@pytest.fixture(scope="module")
def small():
    setting = Setting(pool=60, batch=6, rollouts=4, steps=8)
    return compare.compare({"dps": selectors.dps()}, STUDENT, setting, seeds=3, title="a student")


def test_ends_of_the_gap_are_added(small):
    assert list(small.values) == ["uniform", "dps", "oracle"]
    assert np.all(small.values["uniform"]["gap_effective"] == 0)
    assert np.all(small.values["oracle"]["gap_effective"] == 1)
    ratio = {name: mine["effective_ratio"].mean() for name, mine in small.values.items()}
    assert ratio["oracle"] > ratio["dps"]
    assert small.runs["dps"].steps.effective.shape == (3, 8)


def test_several_students_are_compared_as_each_alone(small):
    setting = Setting(pool=60, batch=6, rollouts=4, steps=8)
    families = {"a student": students.limited_lessons(), "slow": students.slow()}
    every = compare.compare_students({"dps": selectors.dps()}, families, setting, seeds=2)
    assert list(every) == ["a student", "slow"] and every["slow"].title == "slow"
    alone = compare.compare(
        {"dps": selectors.dps()}, students.student(students.slow()), setting, seeds=2
    )
    for name, values in alone.values.items():
        for measure, value in values.items():
            np.testing.assert_allclose(every["slow"].values[name][measure], value, rtol=1e-4)


def test_pairs_share_their_student(small):
    """Before any training the students of a seed are the same, whoever selects."""
    first = {name: run.steps.ability_held_out[:, 0] for name, run in small.runs.items()}
    spread = np.ptp(first["uniform"])
    assert np.abs(first["uniform"] - first["oracle"]).max() < 0.1 * spread


def test_table_and_sentence(small):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compare.table(small))
    text = console.export_text()
    for name in small.values:
        assert name in text
    sentence = compare.finding(small)
    assert "After 192 rollouts each, over 3 seeds" in sentence
    assert "not significantly different" in sentence and sentence.count(".\n") == 0


def test_files(small, tmp_path):
    files = compare.write(small, tmp_path)
    assert [path.name for path in files] == [
        "comparison.json", "ability.png", "effective_ratio.png", "differences.png",
        "calibration.png", "coverage.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in files[1:])
    found = json.loads(files[0].read_text(), parse_constant=pytest.fail)
    assert found["selectors"]["dps"]["measures"]["brier"]["seeds"] == 3
    assert found["selectors"]["uniform"]["measures"]["brier"]["mean"] is None
    assert np.sum(found["selectors"]["dps"]["confusion"]) == pytest.approx(60 * 8 * 3, rel=1e-4)


def test_every_name_makes_a_contender():
    for make in contenders.CONTENDERS.values():
        contender = make(8)
        assert isinstance(contender, Contender)
        jax.eval_shape(lambda c=contender: simulate(c, STUDENT, jax.random.key(0), SMALL))
    for make in contenders.STUDENTS.values():
        assert isinstance(make(), students.StudentParams)


def test_what_is_known_beforehand_reaches_the_selectors():
    """The easiest prompts come first; categories and levels are learned about."""
    setting = Setting(pool=60, batch=6, rollouts=4, steps=10)
    key = jax.random.key(3)
    first = STUDENT.init(jax.random.fold_in(key, 0), 60)
    order = np.argsort(np.asarray(STUDENT.known(first).difficulty))
    run = simulate(contenders.CONTENDERS["static-order"](4), STUDENT, key, setting, record=True)
    np.testing.assert_array_equal(np.sort(run.groups.index.ravel()), np.arange(60))
    for step, chosen in enumerate(run.groups.index):
        assert set(chosen.tolist()) == set(order[6 * step : 6 * step + 6].tolist())
    run = simulate(contenders.CONTENDERS["adarft"](4), STUDENT, key, setting, record=True)
    assert set(run.groups.index[0].tolist()) == set(order[:6].tolist())  # it starts at 0


def test_command_replays_a_trace(tmp_path, capsys):
    row = {"trials": 4, "length": None, "policy": 0}
    rows = [
        {"step": s, "prompt": n, "passes": (s + n) % 5, **row} for s in range(3) for n in range(9)
    ]
    write_trace(tmp_path / "trace.jsonl", make_trace(9, rows))
    options = [
        "--selectors",
        "uniform",
        "speed",
        "adarft",
        "--reference",
        "uniform",
        "--seeds",
        "2",
        "--batch",
        "2",
    ]
    options += ["--trace", str(tmp_path / "trace.jsonl"), "--out", str(tmp_path / "out")]
    assert cli.main(["compare", *options]) == 0
    said = capsys.readouterr().out
    assert "trace.jsonl: 3 steps of 2 x 8 out of 9, 2 seeds" in said
    assert "left out, because they choose how many rollouts a prompt gets: speed" in said
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(found["selectors"]) == ["uniform", "adarft", "oracle"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": "eager"}, "student='eager' must be one of logit-normal"),
        ({"selectors": ("nope",)}, "selector='nope' must be one of uniform"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        command.CompareArguments(**options)


def test_bad_sizes_from_the_command_line(capsys):
    assert cli.main(["compare", "--steps", "0"]) == 2
    assert "steps=0 must be at least 1" in capsys.readouterr().err
    assert cli.main(["compare", "--trace", "/nowhere.jsonl"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
