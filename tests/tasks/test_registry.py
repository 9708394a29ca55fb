"""Tasks by name: what ships, one's own, ids, and what a record says of them."""

import dataclasses
import json
import sys

import pytest

from dpsjax.cli import parse_train
from dpsjax.run.config import from_dict, to_dict
from dpsjax.tasks.answers import boxed, final_answer, tagged
from dpsjax.tasks.base import Problem, Task, TaskSettings, require_distinct
from dpsjax.tasks.countdown import TOKENIZER, score
from dpsjax.tasks.registry import ENTRIES, load, name_of, settings_type

OWN = """
from dataclasses import dataclass
from pathlib import Path
from dpsjax.tasks.base import TaskSettings

@dataclass(frozen=True)
class Mine(TaskSettings):
    '''Words spelled backwards.'''

    file: Path | None = None
    '''Where the words are.'''
    files: tuple[Path, ...] = ()
    '''Where more are.'''
    most: int = 7
    '''Letters.'''
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_own_words.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_own_words:Mine"
    sys.modules.pop("my_own_words", None)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_every_task_has_settings_with_help(name):
    kind = settings_type(name)
    assert issubclass(kind, TaskSettings) and dataclasses.is_dataclass(kind) and kind.__doc__
    assert name_of(kind()) == name


def test_a_task_of_ones_own_is_found_in_the_current_folder(own):
    config = parse_train(["--task.most", "3", "--task.files", "a b", "c"], own).config
    assert (config.task.most, name_of(config.task)) == (3, own)
    assert config.folder().name == "my_own_words-Mine-frontier-seed0"
    record = json.loads(json.dumps(to_dict(config)))
    assert record["task"]["files"][0].endswith("/a b") and record["task"]["file"] is None
    again = from_dict(record).task
    assert again.files == tuple(path.absolute() for path in config.task.files)
    with pytest.raises(NotImplementedError, match="Mine must define build"):
        again.build()
    with pytest.raises(ValueError, match="give --model DIR"):
        again.base()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("json", "must be like my_module:name"),
        (":loads", "must be like my_module:name"),
        ("json.py:loads", r"must be like my_module:name, for the name in my_module\.py"),
        ("json:", "must be like my_module:name"),
        ("json:lauds", "there is no 'lauds' in json"),
        ("broken_module_of_mine:x", r"cannot be imported \(ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_says_why(place, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module_of_mine.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"reward=.*{message}"):
        load(place, "reward")


def test_ids_are_stable_and_told_apart():
    one, two = Problem("1+1", 2, "a"), Problem("1+1", 2, "b")
    assert one.id == Problem("1+1", 2, "a").id != two.id and len(one.id) == 16
    assert dataclasses.replace(one, prompt="other").id == one.id
    require_distinct(train=(one, two), test=(one,))
    with pytest.raises(ValueError, match=r"train holds the id 'x' twice, at 0 and at 2"):
        Task(
            "t", (Problem("", 0, "", "x"), one, Problem("", 1, "", "x")), (), score, TOKENIZER, 1, 1
        )


def test_messages_are_a_prompt():
    talk = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]
    problem = Problem(talk, None, "")
    assert problem.text() == "1?\n\n2" and problem.id != Problem("1?\n\n2", None, "").id


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer> <answer>2", "1"),
        ("<answer>1<answer>2</answer>", "2"),
        ("</answer>1<answer>", "</answer>1<answer>"),
        ("<answer>1</answer>2</answer>", "1</answer>2"),
        ("<ANSWER>1</ANSWER>", "<ANSWER>1</ANSWER>"),
        ("", ""),
    ],
)
def test_the_last_pair_of_tags(text, answer):
    """Between the last opening tag before the last closing one, and that closing tag."""
    assert tagged(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\boxed{\{1\}} and then \boxed{2", r"\{1\}"),
        (r"\boxed 7.", "7."),
        (r"\fbox{3}", "3"),
        (r"\boxed{}", ""),
        (r"\boxedness{3}", None),
        (r"\boxed" * 9, None),
        ("{" * 20_000, None),
        (r"\boxed{" * 20_000, None),
    ],
)
def test_the_last_box(text, answer):
    assert boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} The final answer is 2.", "1"),
        ("Final answer: **3/4**\nmore", "3/4"),
        ("the FINAL  ANSWER is $x = 2.5$. Done", "x = 2.5"),
        ("final answer is 2.5. Done", "2.5"),
        ("final answer", None),
        (r"\boxed{} final answer: 3", None),
        ("5", None),
    ],
)
def test_the_final_answer(text, answer):
    assert final_answer(text) == answer
