"""Tasks of reasoning-gym: drawn the same everywhere, verified by their own rules, and safely."""

import ast
import importlib.util
import json
import random
import shlex
from pathlib import Path

import pytest

from dpsjax import cli
from dpsjax.report.response_file import read_responses
from dpsjax.tasks import gym
from dpsjax.tasks.base import LostScores, Problem
from dpsjax.tasks.gym import GymConfig, score
from dpsjax.tasks.workers import ScoringWorkers
from tests.tasks.attacks import attack

if importlib.util.find_spec("reasoning_gym") is None:  # to import it takes seconds
    pytest.skip("needs the extra: gym", allow_module_level=True)

# What a verifier that evaluates its answers would run; none may reach one.
CALLS = [
    "__import__('os').system('true')",
    "[__import__('os').system('true')]",
    "[().__class__.__base__.__subclasses__()]",
    "(1).real",
    "eval(x)",
    "open",
    "\uff45val(x)",
    "f'{1}'",
    "x\0",
    "lambda x: x",
]
EVALUATED = [name for name in gym._FORMS if name != "game_of_life_halting"]
OTHER = ["", "x", "[[1]]", "((((", "\0", "\uff19", "{}", "None", "1/0", "9" * 30_000, "(" * 9999]


def problem(name, **entry):
    source = {"name": name, "knobs": {}, "level": None, "seed": 0}
    return Problem(name, {"entry": entry, "source": source}, name)


@pytest.mark.parametrize("name", EVALUATED)
def test_nothing_that_could_be_called_reaches_a_verifier(name):
    held = [problem(name, question="?", answer="1", metadata={})] * len(CALLS)
    for text, found in zip(CALLS, score(held, CALLS), strict=True):
        assert not found.correct
        if "(" in text:
            assert (found.reward, found.reason) == (0.0, "an answer of another form")


@pytest.mark.slow
def test_the_verifiers_that_evaluate_are_known():
    """A new version of the package with another such verifier fails here."""
    folder = Path(importlib.util.find_spec("reasoning_gym").origin).parent
    found = set()
    for path in folder.glob("*/*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in ("score_answer", "_check_answer"):
                called = {
                    getattr(call.func, "attr", getattr(call.func, "id", ""))
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call)
                }
                if called & {"eval", "exec", "parse_expr", "sympify", "literal_eval", "compile"}:
                    found.add(path.stem)
    assert found - {"number_sorting", "propositional_logic"} == set(EVALUATED), found


SOURCE = {"name": "countdown", "knobs": {"max_numbers": 4}, "level": None, "seed": 0}


def test_problems_are_drawn_and_verified():
    entries = gym.draw(SOURCE, 6, 2)
    train, test = ([gym._problem(entry, SOURCE) for entry in pool] for pool in entries)
    ids = [p.id for p in (*train, *test)]
    assert len(set(ids)) == 8 and all(name.startswith("countdown/") for name in ids)
    assert all(p.answer["entry"]["metadata"]["difficulty"]["numbers"] == (4, 4) for p in train)
    right = [p.answer["entry"]["answer"] for p in train]
    assert [s[:3] for s in score(train, right)] == [(1.0, True, "")] * 6
    wrong = score(train, ["1+1", *OTHER[:3], "9" * 30_000, "1/0"])
    assert not any(s.correct for s in wrong) and all(s.reason for s in wrong)
    assert wrong[0].reward == 0.05  # its verifier's own: a value, but of other numbers
    again = gym.draw(SOURCE, 3, 1)
    assert again == (entries[0][:3], entries[1][:1])


@pytest.mark.slow
def test_a_task_is_built():
    task = GymConfig(problems=6, held_out=2, knobs=("max_numbers=4",)).build()
    assert task.train[0].id == gym._problem(gym.draw(SOURCE, 1, 1)[0][0], SOURCE).id
    assert task.isolated and task.words.question(task.train[0]).startswith(task.train[0].prompt)
    assert task.words.answer("<answer>1</answer>") == "1" and task.words.answer("1") == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"knobs": ("max_numbers",)}, "must be NAME=JSON"),
        ({"knobs": ("max_numbers=x",)}, "must be NAME=JSON"),
        ({"level": -1}, "level=-1 must be 0 or more"),
        ({"threshold": 0.0}, "threshold"),
        ({"problems": 0}, "problems"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GymConfig(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "nonsense"}, "use one of ab, acre, "),
        ({"knobs": ("nonsense=3",)}, "countdown has no nonsense, but max_numbers"),
        ({"knobs": ("min_numbers=0",)}, "refuses them .*greater than 1"),
        ({"dataset": "coin_flip", "problems": 5000}, "too few different problems"),
        ({"dataset": "boxnet", "level": 99, "problems": 2}, ""),
    ],
)
def test_wrong_names_are_told_what_there_is(settings, message):
    if not message:
        assert GymConfig(held_out=1, **settings).build().train
        return
    with pytest.raises(ValueError, match=message):
        GymConfig(held_out=1, **settings).build()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["word_ladder", "isomorphic_strings", "polynomial_multiplication"])
def test_problems_that_hang_on_the_order_of_sets_are_the_same_in_every_process(name):
    first, second = (GymConfig(problems=4, held_out=2, dataset=name).build() for _ in range(2))
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.slow
def test_every_task_is_verified_and_takes_no_nonsense():
    from reasoning_gym.factory import DATASETS  # not while tests are collected: it takes seconds

    for name in sorted(set(DATASETS) - {"composite"}):
        source = {"name": name, "knobs": {}, "level": None, "seed": 1}
        train, test = gym.draw(source, 2, 1)
        held = [gym._problem(entry, source) for entry in (*train, *test)]
        if isinstance(train[0]["answer"], str):  # others have no one right answer to show
            right = [p.answer["entry"]["answer"] for p in held]
            assert all(s.correct for s in score(held, right)), name
        for one in held:
            verdicts = score([one] * len(OTHER + CALLS), OTHER + CALLS)
            assert not any(s.correct for s in verdicts), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["countdown", "n_queens", "sudoku", "simple_integration"])
def test_hostile_responses_solve_nothing(name):
    source = {"name": name, "knobs": {}, "level": None, "seed": 3}
    held = gym._problem(gym.draw(source, 1, 1)[0][0], source)
    workers, rng = ScoringWorkers(score, 2, 10.0, one_by_one=True), random.Random(5)
    for _ in range(25):
        try:
            found = workers([held] * 1000, [attack(rng, bombs=False) for _ in range(1000)])
        except LostScores as lost:
            found = lost.scores
        assert sum(s is None for s in found) <= 10
        assert not any(s.correct for s in found if s)
    workers.close()


@pytest.mark.slow
def test_train_by_name(tmp_path):
    words = shlex.split(
        "train gym --task.name coin_flip --task.problems 12 --task.held-out 4 --init random "
        "--task.response-tokens 4 --steps 2 --prompts 4 --grpo.rollouts-per-prompt 2 "
        "--model.width 32 --model.mlp-width 64 --model.layers 1 --model.heads 4 --model.head-dim 8 "
        "--evaluation.samples 1 --mesh.data 1 --score-workers 1"
    )
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    rows = read_responses(tmp_path / "run" / "responses.jsonl")
    assert rows and {row["source"] for row in rows} == {"coin_flip"}
    record = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert record["config"]["task"]["name"] == "gym"
    assert record["config"]["task"]["dataset"] == "coin_flip"
