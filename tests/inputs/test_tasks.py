"""Every public name of dpsjax.tasks."""

import random

import pytest

from dpsjax.tasks import (
    answers,
    base,
    countdown,
    expression,
    features,
    geometry,
    geometry3k,
    operators,
    registry,
    solution,
    tokenizer,
    traces,
    workers,
)
from dpsjax.tasks import math as mathematics
from tests.inputs.wrong import Row, complaints, public

PROBLEM = base.Problem("3 25 7=46:", {"numbers": [3, 25, 7], "target": 46}, "3 numbers")
ROW = {"step": 0, "prompt": 1, "passes": 3, "trials": 8, "length": 2.5, "policy": 0}
SIZES = {
    "sizes": (3, 4),
    "weights": (1.0, 1.0),
    "numbers": (1, 99),
    "targets": (1, 99),
    "response_tokens": 16,
}
TRACE = traces.make_trace(4, [ROW])


def evaluate(text):
    try:
        return expression.evaluate(text)
    except expression.ExpressionError as error:
        return str(error)  # a verdict, as documented


def first(**arguments):
    return next(countdown.warm_start(**arguments))


CHAIN = base.Problem("fab3=", "501", "3 operators")
CHAINS = {"values": 16, "operators": 26, "lengths": (2, 3), "weights": (1.0, 1.0), "tables": 0}
SEEN = tokenizer.PictureTokenizer("012")


def first_chain(**arguments):
    return next(operators.warm_start(**arguments))


ROWS = {
    "base.Problem": Row(
        base.Problem,
        {"prompt": "2 3=5:", "answer": 5, "source": "2", "id": "a", "images": (b"P5",)},
        also={"prompt": [(), ({"role": "user"},), ("x",), 3]},
        free=frozenset({"answer"}),
    ),
    **{
        f"answers.{name}": Row(getattr(answers, name), {"text": "<answer>1</answer>"})
        for name in ("between_tags", "boxed", "final_answer", "strictly_tagged", "tagged")
    },
    "registry.entry_of": Row(registry.entry_of, {"name": "countdown"}, said={"name": "task"}),
    "registry.settings_type": Row(
        registry.settings_type,
        {"name": "countdown"},
        also={"name": ["json:loads", "os:nothing"]},
        said={"name": "task"},
    ),
    "features.prompt_features": Row(
        lambda problems: features.prompt_features(problems).tolist(), {"problems": (PROBLEM, CHAIN)}
    ),
    "base.LostScores": Row(base.LostScores, {"scores": [None], "errors": ["a worker died"]}),
    "base.stop_ids": Row(base.stop_ids, {"tokenizer": countdown.TOKENIZER}),
    "base.Task": Row(
        base.Task,
        {
            "name": "mine",
            "train": (PROBLEM,),
            "test": (PROBLEM,),
            "score": countdown.score,
            "tokenizer": countdown.TOKENIZER,
            "prompt_tokens": 16,
            "response_tokens": 16,
        },
    ),
    "countdown.countdown": Row(
        countdown.countdown,
        {"num_train": 4, "num_test": 2, "seed": 0, **SIZES, "format_reward": 0.1},
        also={"numbers": [(5, 1), (1, 2, 3), (1.5, 3)], "sizes": [(9,), (2.5,)]},
        free=frozenset({"seed"}),
    ),
    "countdown.warm_start": Row(first, {"seed": 0, **SIZES}, free=frozenset({"seed"})),
    "countdown.verify": Row(
        countdown.verify,
        {"expression": "3*7+25", "numbers": (3, 25, 7), "target": 46, "format_reward": 0.1},
    ),
    "countdown.score": Row(
        countdown.score, {"problems": [PROBLEM], "responses": ["1"], "format_reward": 0.1}
    ),
    "base.score_each": Row(
        base.score_each,
        {
            "judge": lambda problem, text: base.Score(0.0, False, "wrong"),
            "problems": [PROBLEM],
            "responses": ["1"],
        },
    ),
    "countdown.base_path": Row(countdown.base_path, {}),
    "countdown.question": Row(countdown.question, {"problem": PROBLEM}),
    "operators.operator_chains": Row(
        operators.operator_chains,
        {"num_train": 4, "num_test": 2, "seed": 0, **CHAINS},
        also={"lengths": [(65, 2), (2.5, 3)], "values": [17], "operators": [27]},
        free=frozenset({"seed", "tables"}),
    ),
    "operators.warm_start": Row(
        first_chain,
        {"seed": 0, "right": operators.RIGHT, **CHAINS},
        also={"right": [(0.5,), (2.0,) * 26]},
        free=frozenset({"seed", "tables"}),
    ),
    "operators.verify": Row(operators.verify, {"response": "50", "answer": "50"}),
    "operators.score": Row(operators.score, {"problems": [CHAIN], "responses": ["501"]}),
    "operators.base_path": Row(operators.base_path, {}),
    "geometry.geometry": Row(
        geometry.geometry,
        {"num_train": 4, "num_test": 2, "seed": 0, "rules": ("diameter", "midline"), "scale": 1},
        free=frozenset({"seed"}),
    ),
    "geometry.warm_start": Row(
        lambda **given: next(geometry.warm_start(**given)),
        {"seed": 0, "figures": 6, "right": 0.5},
        free=frozenset({"seed"}),
    ),
    "geometry.verify": Row(geometry.verify, {"response": "50", "answer": "50"}),
    "geometry.score": Row(geometry.score, {"problems": [CHAIN], "responses": ["501"]}),
    "geometry.base_path": Row(geometry.base_path, {}),
    "geometry3k.well_formed": Row(geometry3k.well_formed, {"response": "<think>"}),
    "geometry3k.score": Row(
        geometry3k.score,
        {"problems": [base.Problem("", {"references": ["2"]}, "")], "responses": ["2"]},
    ),
    "expression.evaluate": Row(evaluate, {"text": "1+2"}),
    "solution.random_tree": Row(
        solution.random_tree, {"rng": random.Random(0), "numbers": (3, 25, 7)}
    ),
    "solution.write": Row(
        solution.write, {"tree": solution.random_tree(random.Random(0), [3, 25, 7])}
    ),
    "tokenizer.CharTokenizer": Row(tokenizer.CharTokenizer, {"alphabet": "012"}),
    "tokenizer.CharTokenizer, encode": Row(countdown.TOKENIZER.encode, {"text": "1+2"}),
    "tokenizer.CharTokenizer, decode": Row(countdown.TOKENIZER.decode, {"ids": (3, 4)}),
    "tokenizer.PictureTokenizer": Row(tokenizer.PictureTokenizer, {"alphabet": "012"}),
    "tokenizer.PictureTokenizer, encode": Row(SEEN.encode, {"text": "<image>1"}),
    "tokenizer.PictureTokenizer, decode": Row(SEEN.decode, {"ids": (3, 4)}),
    "tokenizer.ByteTokenizer": Row(tokenizer.ByteTokenizer, {}),
    "tokenizer.ByteTokenizer, encode": Row(tokenizer.ByteTokenizer().encode, {"text": "1+2"}),
    "tokenizer.ByteTokenizer, decode": Row(tokenizer.ByteTokenizer().decode, {"ids": (3, 4)}),
    "math.references": Row(mathematics.references, {"value": "2"}, loose=True),
    "math.grade_any": Row(mathematics.grade_any, {"answer": "2", "references": ["2"]}, loose=True),
    "math.grade": Row(mathematics.grade, {"answer": "2", "reference": "2"}, loose=True),
    "math.score": Row(
        mathematics.score,
        {"problems": [base.Problem("", {"references": ["2"]}, "")], "responses": ["2"]},
    ),
    "traces.make_trace": Row(traces.make_trace, {"num_prompts": 4, "rows": [ROW]}),
    "traces.header_line": Row(traces.header_line, {"num_prompts": 4}),
    "traces.row_line": Row(traces.row_line, {"row": ROW}),
    "workers.ScoringWorkers": Row(
        workers.ScoringWorkers,
        {"score": countdown.score, "count": 2, "seconds": 30.0, "one_by_one": True},
    ),
    "workers.runs": Row(
        lambda problems: list(workers.runs(problems)), {"problems": [PROBLEM, PROBLEM]}
    ),
}
FIELDS = {
    # A length that is not known, None, is NaN in the columns.
    name: Row(
        lambda **given: traces.make_trace(4, [ROW | given]), {name: value}, loose=name == "length"
    )
    for name, value in ROW.items()
}
ELSEWHERE = {
    **dict.fromkeys(
        (
            "data.columns.held_out",
            "data.columns.lookup",
            "data.columns.problems_of",
            "jsonl.FileSettings",
            "jsonl.JsonlConfig",
            "rewards.RewardScorer",
            "rewards.values_of",
            "data.rows.read_rows",
        ),
        "tests/tasks/test_files.py",
    ),
    "math.MathConfig": "tests/tasks/test_math.py",
    "geometry.GeometryConfig": "tests/inputs/test_train.py",
    "geometry.picture": "tests/tasks/test_geometry.py: of figures, which tasks draw",
    "drawing.Canvas": "likewise",
    "geometry3k.Geometry3kConfig": "tests/tasks/test_geometry3k.py",
    "base.TaskSettings": "tests/tasks/test_registry.py, and below for each task",
    "base.require_distinct": "tests/tasks/test_registry.py",
    "countdown.CountdownConfig": "tests/inputs/test_train.py",
    "operators.OperatorsConfig": "tests/inputs/test_train.py",
    "registry.name_of": "tests/tasks/test_registry.py",
    "registry.load": "tests/tasks/test_registry.py",
    "shares.split_of": "tests/tasks/test_shares.py: for tasks, which check their own settings",
    "shares.quotas": "likewise",
    "drawn.DrawnSettings": "tests/inputs/test_train.py: those below it",
    **dict.fromkeys(
        ("gym.GymConfig", "gym.gym", "gym.draw", "gym.score"), "tests/tasks/test_gym.py"
    ),
    "data.texts.text_task": "tests/tasks/test_math.py, tests/tasks/test_files.py: Task checks it",
    "base.Tokenizer": "a protocol",
    "expression.ExpressionError": "an error",
    "countdown.read_problems": "below",
    "traces.read_trace": "tests/lab/test_traces.py: files that are cut off, edited or foreign",
    "traces.write_trace": "below",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_column_of_a_trace_is_named(name):
    assert complaints(FIELDS[name]) == []


def test_writing_a_trace_names_a_wrong_argument(tmp_path):
    row = Row(traces.write_trace, {"path": str(tmp_path / "trace.jsonl"), "trace": TRACE})
    assert complaints(Row(row.call, row.good, free=frozenset({"path"}))) == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"x"',
        "{}",
        '{"numbers": 3, "target": 4}',
        '{"numbers": [], "target": 4}',
        '{"numbers": ["x"], "target": 4}',
        '{"numbers": [3.5], "target": 4}',
        '{"numbers": [3], "target": null}',
        '{"numbers": [true], "target": 4}',
        '{"numbers": [1e400], "target": 4}',
        "\0",
    ],
)
def test_a_file_of_problems_that_are_none_names_the_line(tmp_path, line):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"numbers": [3, 25, 7], "target": 46}\n' + line + "\n")
    if not line:
        assert countdown.read_problems(path) == (PROBLEM,)
        return
    with pytest.raises(ValueError, match=r"problems\.jsonl, line 2"):
        countdown.read_problems(path)


def test_every_public_name_is_covered():
    covered = {f"tasks.{name.split(',')[0]}" for name in ROWS}
    named = public("dpsjax.tasks") | public("dpsjax.tasks.data")
    assert named == covered | {f"tasks.{name}" for name in ELSEWHERE}
