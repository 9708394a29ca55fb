"""The command: table, sentence, JSON, pictures; and errors that speak."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from dpsjax import selectors
from dpsjax.lab import command, compare, contenders, report, students
from dpsjax.lab.contenders import Contender, contender
from dpsjax.lab.simulate import Setting, simulate, simulate_seeds
from dpsjax.lab.traces import make_trace, write_trace
from dpsjax.rollouts import vip_allocate
from dpsjax.selectors import Entry, Selector, pool

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


def test_several_students_are_compared_as_each_alone(small, monkeypatch):
    """And every contender is traced once for all of them."""
    traced = []

    def counted(contender, *rest):
        traced.append(contender)
        return simulate(contender, *rest)

    monkeypatch.setattr(compare, "simulate", counted)
    setting = Setting(pool=60, batch=6, rollouts=4, steps=8)
    families = {"a student": students.limited_lessons(), "slow": students.slow()}
    every = compare.compare_students({"dps": selectors.dps()}, families, setting, seeds=2)
    assert len(traced) == 3  # uniform, dps and the oracle
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
    console.print(report.table(small))
    text = console.export_text()
    for name in small.values:
        assert name in text
    sentence = report.finding(small)
    assert "After 192 rollouts each, over 3 seeds" in sentence
    assert "not significantly different" in sentence and sentence.count(".\n") == 0


def test_files(small, tmp_path):
    files = report.write(small, tmp_path)
    assert [path.name for path in files] == [
        "comparison.json", "ability.png", "effective_ratio.png", "differences.png",
        "calibration.png", "coverage.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in files[1:])
    found = json.loads(files[0].read_text(), parse_constant=pytest.fail)
    assert found["selectors"]["dps"]["measures"]["brier"]["seeds"] == 3
    assert found["selectors"]["uniform"]["measures"]["brier"]["mean"] is None
    assert np.sum(found["selectors"]["dps"]["confusion"]) == pytest.approx(60 * 8 * 3, rel=1e-4)


def test_whatever_is_trained_is_compared_with_the_same_measures(small):
    """Runs of one's own making, here those of the student: the same comparison."""
    setting = Setting(pool=60, batch=6, rollouts=4, steps=8)
    seen = []

    def run(contender):
        seen.append(contender.oracle)
        return simulate_seeds(contender, STUDENT, 3, setting)

    found = compare.compare_runs({"dps": selectors.dps()}, run, setting, 3, title="a student")
    assert sorted(seen) == [False, False, True]
    assert report.to_dict(found)["differences"] == report.to_dict(small)["differences"]


@pytest.mark.parametrize("name", contenders.named())
def test_every_name_of_the_catalogue_makes_a_contender(name):
    made = contender(name, 4)
    jax.eval_shape(lambda: simulate(made, STUDENT, jax.random.key(0), SMALL))


def test_variants_are_their_keywords():
    assert set(contenders.named()) > {"dps", "dps-cool", "dps-1.0", "dps-7", "mopps-band"}
    entry, words = contenders.named()["dps-cool"]
    assert entry.recipe is selectors.dps and words == {"cool_down": 12}
    with pytest.raises(ValueError, match="selector='nope' must be one of uniform, "):
        contender("nope")


def test_a_name_may_bring_settings():
    entry, words = contenders.looked_up("dps-cool:decay=0.7,prior_alpha='progress'")
    assert words == {"cool_down": 12, "decay": 0.7, "prior_alpha": "progress"}
    assert entry.recipe is selectors.dps
    assert contender("knapsack:most=5,lowest=2", 4).most == 5
    for name, said in (
        ("dps:decy=1", "'decy' must be one of decay, "),
        ("dps:decay=open('x')", "decay=open.* must be a number, True, False or a 'word'"),
        ("dps:decay", "decay= must be a number"),
    ):
        with pytest.raises(ValueError, match=said):
            contender(name)


@pytest.mark.parametrize("name", students.STUDENTS)
def test_every_name_makes_a_student(name):
    assert isinstance(students.STUDENTS[name](), students.StudentParams)
    assert students.STUDENTS[name].__name__ == name.replace("-", "_")


def test_what_is_known_beforehand_reaches_the_selectors():
    """The easiest prompts come first."""

    def init(num_prompts, data=None):
        return pool.column(data, "difficulty", num_prompts, np.float32, "easiest")

    easiest = Selector(init, lambda key, proposal, known: (proposal.add(-known), known))
    once = selectors.chain(selectors.cool_down(99), easiest)
    setting = Setting(pool=60, batch=6, rollouts=4, steps=10)
    key = jax.random.key(3)
    first = STUDENT.init(jax.random.fold_in(key, 0), 60)
    order = np.argsort(np.asarray(STUDENT.data(first)["difficulty"]))
    run = simulate(Contender(once), STUDENT, key, setting, record=True)
    np.testing.assert_array_equal(np.sort(run.groups.index.ravel()), np.arange(60))
    for step, chosen in enumerate(run.groups.index):
        assert set(chosen.tolist()) == set(order[6 * step : 6 * step + 6].tolist())
    silent = STUDENT._replace(data=students.Student._field_defaults["data"])
    with pytest.raises(ValueError, match="easiest needs 'difficulty' of every prompt"):
        simulate(Contender(once), silent, key, setting)


def allocating(most=32):
    """A recipe that chooses how many rollouts a prompt gets."""
    return selectors.chain(selectors.beta_mean(), selectors.allocate(vip_allocate, 8, most))


def looking():
    """A recipe that needs what a trace does not hold."""
    return selectors.uniform()


def test_command_replays_a_trace(tmp_path, monkeypatch):
    new = (Entry(allocating, most="most"), Entry(looking, needs=("features", "topic")))
    entries = selectors.catalogue() | {entry.name: entry for entry in new}
    monkeypatch.setattr(contenders, "catalogue", lambda: entries)
    row = {"trials": 4, "length": None, "policy": 0}
    rows = [
        {"step": s, "prompt": n, "passes": (s + n) % 5, **row} for s in range(3) for n in range(9)
    ]
    write_trace(tmp_path / "trace.jsonl", make_trace(9, rows))
    arguments = command.CompareArguments(
        selectors=("allocating", "uniform-epochs", "looking"),
        reference="uniform",
        seeds=2,
        batch=2,
        trace=tmp_path / "trace.jsonl",
        out=tmp_path / "out",
    )
    console = Console(width=80, record=True, file=io.StringIO())
    command.run(arguments, console)
    said = console.export_text()
    assert "trace.jsonl: 3 steps of 2 x 8 out of 9, 2 seeds" in said
    why = "left out, because they "
    assert f"{why}choose how many rollouts a prompt gets: allocating" in said
    assert f"{why}need the features of a prompt: looking" in said
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert list(found["selectors"]) == ["uniform", "uniform-epochs", "oracle"]


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
