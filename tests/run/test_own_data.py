"""The whole command on anybody's files, with a checkpoint folder."""

import json
import shlex
import sys

import pytest

from dpsjax import cli
from dpsjax.report.response_file import read_responses

pytest.importorskip("tokenizers", reason="needs the extra: hf")
pytest.importorskip("jinja2", reason="needs the extra: hf")

from tests.run.folders import write_folder

REWARD = '''
def letters(prompts, completions, **columns):
    """Half a reward for a letter, a whole one for an early one."""
    first = [completion[:1].lower() for completion in completions]
    return [0.5 * (c.isalpha()) + 0.5 * ("a" <= c <= "m") for c in first]
'''
TINY = shlex.split(
    "--steps 2 --prompts 4 --grpo.rollouts-per-prompt 2 --task.response-tokens 4 "
    "--task.held-out 4 --evaluation.samples 1 --mesh.data 1 --grpo.learning-rate 1e-3"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    write_folder(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "reward_of_letters.py").write_text(REWARD, encoding="utf-8")
    rows = [{"prompt": f"Say {n}.", "answer": "2", "id": n} for n in range(12)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "words.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_train_on_a_file_and_repeat_it(folder, here, capsys, monkeypatch):
    words = ["train", "jsonl", "--task.train", "words.jsonl", "--model", str(folder), *TINY]
    words += ["--task.reward", "reward_of_letters:letters", "--out", "run"]
    assert cli.main(words) == 0
    rows = read_responses(here / "run" / "responses.jsonl")
    assert rows and all(row["question"].startswith("<|user|>Say ") for row in rows)
    assert all(row["correct"] == (row["reward"] == 1) for row in rows)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    again = ["train", "jsonl", "--from", str(here / "run" / "config.json")]
    assert cli.main(again) == 0
    folders = here / "run", here / "elsewhere" / "run-repeated"
    one, two = (json.loads((path / "summary.json").read_text()) for path in folders)
    assert one["params_digest"] == two["params_digest"]
    capsys.readouterr()
    path = here / "words.jsonl"
    path.write_text(path.read_text().replace("Say 3.", "Say 33."))
    assert cli.main([*again, "--out", str(here / "third")]) == 2
    assert "the data of this run are not those of the record" in capsys.readouterr().err


def test_train_mathematics(folder, here):
    pytest.importorskip("math_verify", reason="needs the extra: math")
    words = ["train", "math", "--task.train", "words.jsonl", "--model", str(folder), *TINY]
    assert cli.main([*words, "--score-workers", "1", "--out", "math"]) == 0
    rows = read_responses(here / "math" / "responses.jsonl")
    assert {row["reason"] for row in rows} == {"no answer"} and {row["reward"] for row in rows} == {
        0
    }


def test_mistakes_cost_no_rollout(here, folder, capsys):
    words = ["train", "jsonl", "--task.train", "words.jsonl", *TINY, "--out", "run"]
    for more, message in (
        ([], "give --task.reward"),
        (["--task.reward", "no_such:f"], "the module 'no_such' cannot be imported"),
        (["--task.reward", "reward_of_letters:letters"], "give --model DIR"),
    ):
        assert cli.main([*words, *more]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    math = ["train", "math", "--task.train", "words.jsonl", "--model", str(folder), *TINY]
    assert cli.main([*math, "--score-workers", "0", "--out", "run"]) == 2
    assert "score-workers=0 would grade math in this process" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("words", ["math --task.train words.jsonl", "gym --task.problems 8"])
def test_tasks_with_workers_are_planned(words, here, folder, capsys):
    more = ["--model", str(folder), "--prompts", "4", "--plan", "v5e:2x4", "--plan.estimate"]
    assert cli.main(["train", *words.split(), "--task.held-out", "4", *more]) == 0
    assert "fits" in capsys.readouterr().out
