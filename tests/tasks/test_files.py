"""Anybody's files: every format, every mistake with its file and line, ids for ever."""

import json
import math

import pytest

from dpsjax.tasks.base import Problem
from dpsjax.tasks.data.columns import Columns, held_out, lookup, problems_of
from dpsjax.tasks.data.rows import read_rows
from dpsjax.tasks.jsonl import JsonlConfig
from dpsjax.tasks.rewards import RewardScorer

ROWS = [{"question": f"{n}+{n}?", "answer": str(2 * n), "level": n} for n in range(12)]


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_parquet(path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra: parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def as_datasets(path):
    datasets = pytest.importorskip("datasets", reason="needs the extra: datasets")
    made = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(str(path))


FORMATS = {
    "a.jsonl": write,
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "lines.json": write,
    "marked.jsonl": lambda path: path.write_bytes(
        b"\xef\xbb\xbf" + write(path).read_bytes().replace(b"\n", b"\r\n\n")
    ),
    "a.parquet": as_parquet,
    "folder": as_datasets,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    FORMATS[name](tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert [row.values for row in rows] == ROWS
    assert all(str(tmp_path / name) in row.where for row in rows)


def test_a_split_that_is_not_there_is_named(tmp_path):
    as_datasets(tmp_path / "d")
    assert len(read_rows(tmp_path / "d", "test")) == 1
    with pytest.raises(ValueError, match="no split 'dev', but train, test"):
        read_rows(tmp_path / "d", "dev")


def test_other_ends_of_lines_do_not_split_a_row(tmp_path):
    text = "a\u2028b\u2029c\x85d\x0be"
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_rows(path)[0].values == {"prompt": text}


GOOD = '{"prompt": "1?", "id": "a"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (GOOD + '{"prompt": ', "line 2: not JSON"),
        (GOOD + "[1]", "line 2: a row must be an object"),
        (GOOD + '{"text": "x"}', "line 2: has not any of prompt.* but text; .*--task.prompt-field"),
        (GOOD + '{"prompt": ""}', "line 2: the question is empty"),
        (GOOD + '{"prompt": 7}', "line 2: the question must be a text, or a list of messages"),
        (GOOD + '{"prompt": [{"role": "user"}]}', "line 2: the question must be a text"),
        (GOOD + '{"prompt": "2?", "id": 1.5}', "line 2: the id 1.5 must be a text or a whole"),
        (GOOD + "\n" + GOOD, r"line 3: the id 'a/a' is that of .*a\.jsonl, line 1 too"),
        (GOOD + "[" * 100_000, "line 2: (JSON nested|not JSON)"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        problems_of([path], Columns())
    assert str(path) in str(caught.value)


def test_other_mistakes(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.parquet").write_text("x")
    (tmp_path / "c.jsonl").write_bytes(b'{"prompt": "\xff"}')
    (tmp_path / "d").mkdir()
    for name, message in (
        ("a.csv", "ends in .jsonl, .json or .parquet"),
        ("b.parquet", "not a Parquet file"),
        ("c.jsonl", "line 1: not UTF-8"),
        ("d", "no folder of datasets"),
    ):
        with pytest.raises(ValueError, match=message):
            read_rows(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_rows(tmp_path / "nowhere.jsonl")
    path = write(tmp_path / "e.jsonl")
    for columns, message in (
        (Columns(prompt="ask"), "has not column 'ask'"),
        (Columns(answer="gold"), "no column 'gold'"),
        (Columns(id="key"), "no column 'key'"),
        (Columns(source="topic"), "no column 'topic'"),
    ):
        with pytest.raises(ValueError, match=rf"e\.jsonl, line 1: .*{message}"):
            problems_of([path], columns)
    with pytest.raises(ValueError, match="given twice"):
        problems_of([path, path], Columns())


def test_nested_fields_of_verl_and_their_own_ids(tmp_path):
    row = {
        "data_source": "gsm8k",
        "prompt": [{"role": "user", "content": "1+1?"}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0, "split": "train"},
    }
    for folder in ("one", "two"):  # indices start again in each file
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train.jsonl", [row])
    found = problems_of([tmp_path / f / "train.jsonl" for f in ("one", "two")], Columns())
    assert [p.id for p in found] == ["one/train/0", "two/train/0"]
    assert found[0].source == "gsm8k" and found[0].answer["answer"] == "2"
    assert found[0].prompt == ({"role": "user", "content": "1+1?"},)
    assert lookup({"a.b": 1, "a": {"b": 2}}, ["a.b"]) == 1
    assert lookup({"a": {"b": None}, "c": 0}, ["a.b", "a.x.y", "c"]) == 0


def test_ids_of_rows_without_one_are_those_of_their_contents(tmp_path):
    problems = problems_of([write(tmp_path / "a.jsonl", [*ROWS, ROWS[0]])], Columns(), suffix=" Go")
    again = problems_of([write(tmp_path / "a.jsonl", ROWS[::-1])], Columns(), suffix=" Go")
    assert {p.id for p in again} < {p.id for p in problems} and len({p.id for p in problems}) == 13
    assert problems[12].id == problems[0].id + "-2" and problems[3].prompt == "3+3? Go"
    assert {p.source for p in problems} == {"a"}


def test_what_is_held_out_does_not_depend_on_the_order(tmp_path):
    problems = problems_of([write(tmp_path / "a.jsonl")], Columns())
    train, test = held_out(problems, 4)
    assert (len(train), len(test)) == (8, 4) and not {p.id for p in train} & {p.id for p in test}
    assert {p.id for p in held_out(problems[::-1], 4)[1]} == {p.id for p in test}
    assert len(held_out(problems, None)[1]) == 1
    with pytest.raises(ValueError, match="leaves none to train on"):
        held_out(problems, 12)


REWARDS = """
import math

def right(prompts, completions, answer, **columns):
    assert len(prompts) == len(completions) == len(answer)
    return [1.0 if text_of(c) == a else 0.0 for c, a in zip(completions, answer)]

def text_of(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]

def short(completions):
    return [1.0 if len(text_of(c)) < 3 else 0.0 for c in completions]

def unsure(completions, level, **columns):
    return [None if n == 1 else math.nan if n == 2 else 0.5 for n in level]

def solved(completions, answer, **columns):
    return [text_of(c) == a for c, a in zip(completions, answer)]

def none(completions, **columns):
    return [None] * len(completions)

def few(completions, **columns):
    return [1.0]

def word(completions, **columns):
    return ["good"] * len(completions)

def infinite(completions, **columns):
    return [math.inf] * len(completions)

def number(completions, **columns):
    return 1.0

def breaks(completions, missing, **columns):
    return [0.0]

async def later(completions, **columns):
    return [0.0]

not_a_function = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_a_test.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "rewards_of_a_test"


@pytest.fixture
def problems(tmp_path):
    return problems_of([write(tmp_path / "a.jsonl")], Columns())


def test_reward_functions_of_trl_unchanged(module, problems):
    scorer = RewardScorer((f"{module}:right", f"{module}:short"), (1.0, 0.25), threshold=1.0)
    scores = scorer(problems[6:8], ["12", "quite long"])
    assert [s.reward for s in scores] == [1.25, 0.0] and [s.correct for s in scores] == [
        True,
        False,
    ]
    # A form that is rewarded is not an answer that is right.
    assert scorer(problems[:1], ["9"])[0][:2] == (0.25, False)


def test_conversations_get_messages(module):
    talk = ({"role": "user", "content": "1?"},)
    problem = Problem(talk, {"row": {"answer": "2"}, "prompt": list(talk), "answer": "2"}, "")
    assert RewardScorer((f"{module}:right",))([problem], ["2"])[0].correct


def test_no_verdict_is_none(module, problems):
    scores = RewardScorer((f"{module}:unsure",), threshold=0.5)(problems[:4], ["x"] * 4)
    assert [math.isnan(s.reward) for s in scores] == [False, True, True, False]
    assert [s.correct for s in scores] == [True, False, False, True]
    both = RewardScorer((f"{module}:unsure", f"{module}:short"))(problems[:3], ["x"] * 3)
    assert [s.reward for s in both] == [1.5, 1.0, 1.0]


def test_a_second_function_says_what_is_correct(module, problems):
    scorer = RewardScorer((f"{module}:short",), correct=f"{module}:solved")
    scores = scorer(problems[3:5], ["6", "6"])
    assert [(s.reward, s.correct) for s in scores] == [(1.0, True), (1.0, False)]
    lost = RewardScorer((f"{module}:short",), correct=f"{module}:none")(problems[:1], ["0"])
    assert math.isnan(lost[0].reward)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", "returned 1 values for 2 completions"),
        ("word", "returned 'good' where a number or None must be"),
        ("infinite", "an infinite reward"),
        ("number", "returned 1.0, no list"),
        ("later", "is asynchronous"),
    ],
)
def test_what_is_no_list_of_rewards_is_refused(module, problems, name, message):
    with pytest.raises(ValueError, match=message):
        RewardScorer((f"{module}:{name}",))(problems[:2], ["a", "b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": ()}, "give --task.reward"),
        ({"reward": ("breaks",)}, r"failed on .*TypeError.*columns question, answer, level"),
        ({"reward": ("nothing",)}, "there is no 'nothing'"),
        ({"reward": ("not_a_function",)}, "is no function"),
        ({"reward": ("right",), "weights": (1.0, 2.0)}, "one for each of the 1 rewards"),
        ({"reward": ("right",), "held_out": 12}, "leaves none to train on"),
        ({"reward": ("right",), "train": ()}, "give a file of problems"),
    ],
)
def test_mistakes_are_found_before_any_rollout(module, tmp_path, settings, message):
    values = {"train": (write(tmp_path / "a.jsonl"),), **settings}
    values["reward"] = tuple(f"{module}:{name}" for name in values["reward"])
    with pytest.raises(ValueError, match=message):
        JsonlConfig(**values).build()


def test_the_task_of_a_file(module, tmp_path):
    path = write(tmp_path / "a.jsonl")
    task = JsonlConfig(train=(path,), reward=(f"{module}:right",), held_out=2).build()
    assert (len(task.train), len(task.test)) == (10, 2) and not task.isolated
    assert set(task.inputs) == {f"reward {module}:right"}
    before = task.fingerprint()
    write(path, [*ROWS[:-1], ROWS[-1] | {"level": 99}])
    changed = JsonlConfig(train=(path,), reward=(f"{module}:right",), held_out=2).build()
    assert changed.fingerprint() != before
