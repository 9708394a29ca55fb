"""Problems are solvable, split for ever, reproducible; scores are strict and never raise."""

import dataclasses
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsjax.tasks import countdown as module
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.countdown import CD4, CD34, countdown, read_problems, verify, warm_start
from dpsjax.tasks.solution import random_tree, write
from tests.oracles import arithmetic


@pytest.fixture(scope="module")
def task() -> Task:
    return countdown()


def _identity(problem: Problem):
    return tuple(sorted(problem.answer["numbers"])), problem.answer["target"]


def test_default_task_is_what_it_says(task):
    assert (len(task.train), len(task.test)) == (500, 500)
    for problems in (task.train, task.test):
        sizes = [len(problem.answer["numbers"]) for problem in problems]
        for size, weight in zip((2, 3, 4), (0.5, 0.25, 0.25), strict=True):
            assert sizes.count(size) == weight * len(problems)
    for problem in task.train + task.test:
        numbers, target = problem.answer["numbers"], problem.answer["target"]
        assert problem.source == f"{len(numbers)} numbers"
        assert all(1 <= number <= 50 for number in numbers)
        assert 1 <= target <= 999
        assert problem.prompt == f"{' '.join(map(str, numbers))}={target}:"
        assert len(task.tokenizer.encode(problem.prompt)) <= task.prompt_tokens
    json.dumps([dataclasses.asdict(problem) for problem in task.train])


def test_problems_are_solvable_by_enumeration(task):
    some = [p for p in task.test if len(p.answer["numbers"]) <= 4][:60]
    assert len(some) == 60
    for problem in some:
        assert problem.answer["target"] in arithmetic.reachable(problem.answer["numbers"])


def test_no_overlap_for_any_seed_or_setting(task):
    warm = {prompt for prompt, _ in itertools.islice(warm_start(3, numbers=(1, 30)), 1500)}
    warm = {
        (tuple(sorted(map(int, prompt.split("=")[0].split()))), int(prompt.split("=")[1][:-1]))
        for prompt in warm
    }
    other = countdown(400, 150, seed=1, numbers=(1, 30), targets=(1, 50), response_tokens=24)
    train = [_identity(problem) for problem in task.train + other.train]
    test = [_identity(problem) for problem in task.test + other.test]
    assert not set(train) & set(test)
    assert not warm & (set(train) | set(test))
    assert len(set(_identity(problem) for problem in task.train)) == len(task.train)
    assert len(set(_identity(problem) for problem in task.test)) == len(task.test)


def test_deterministic_by_seed(task):
    few = countdown(50, 20)
    assert few.fingerprint() == countdown(50, 20).fingerprint()
    assert few.fingerprint() != countdown(50, 20, seed=1).fingerprint()
    # The same on every Python and platform; the shipped base was warm-started beside this pool.
    assert task.fingerprint() == (
        "718c12c61813d78631d0e3b3b6734aac66ce3586a36e0ba24bbc99b3dd5f8f70"
    )


def test_fingerprint_changes_if_any_problem_changes():
    task = countdown(20, 5)
    prints = {task.fingerprint()}
    for index, problem in enumerate(task.train):
        for change in ({"prompt": "?"}, {"answer": None}, {"source": ""}):
            train = list(task.train)
            train[index] = dataclasses.replace(problem, **change)
            prints.add(dataclasses.replace(task, train=tuple(train)).fingerprint())
    prints.add(dataclasses.replace(task, train=task.train[::-1]).fingerprint())
    prints.add(dataclasses.replace(task, train=task.train[:-1]).fingerprint())
    prints.add(dataclasses.replace(task, train=task.train + task.test, test=()).fingerprint())
    assert len(prints) == 1 + 60 + 3


def test_warm_start_solutions_are_right_and_fit():
    pairs = list(itertools.islice(warm_start(0), 600))
    assert pairs == list(itertools.islice(warm_start(0), 600))
    assert pairs != list(itertools.islice(warm_start(1), 600))
    for prompt, solution in pairs:
        numbers, target = prompt[:-1].split("=")
        assert verify(solution, list(map(int, numbers.split())), int(target)).correct
        assert len(solution) + 1 <= module.RESPONSE_TOKENS


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 30), min_size=1, max_size=7))
def test_trees_are_written_as_they_are_computed(seed, numbers):
    tree = random_tree(random.Random(seed), numbers)
    value, used = arithmetic.evaluate(write(tree))
    assert value == tree.value >= 1
    assert used == sorted(numbers)


@pytest.mark.parametrize("count", [1, 7, 50, 101])
def test_sizes_follow_the_weights_up_to_rounding(count):
    train = countdown(count, 0, sizes=(2, 3, 4), weights=(1.0, 0.0, 2.0)).train
    assert len(train) == count
    sizes = [len(problem.answer["numbers"]) for problem in train]
    assert 3 not in sizes
    assert abs(sizes.count(2) - count / 3) < 1


def test_presets():
    answers = [p.answer for p in countdown(100, 10, response_tokens=16, **CD34).train]
    assert {len(answer["numbers"]) for answer in answers} == {3, 4}
    assert max(answer["target"] for answer in answers) <= 99
    assert 50 < max(max(answer["numbers"]) for answer in answers) <= 99
    assert {
        len(p.answer["numbers"]) for p in countdown(50, 10, response_tokens=16, **CD4).train
    } == {4}


@pytest.mark.parametrize(
    ("text", "reward", "reason"),
    [
        ("3*7+25", 1.0, ""),
        (" 25 + 7 * 3 ", 1.0, ""),
        ("25--3*7", 1.0, ""),
        ("25-7-3", 0.0, "wrong value 15"),
        ("25/7/3", 0.0, "wrong value 25/21"),
        ("46", 0.0, "numbers not used exactly once"),
        ("25+7*3+3-3", 0.0, "numbers not used exactly once"),
        ("25+21", 0.0, "numbers not used exactly once"),
        ("7/(25-25)+3", 0.0, "division by zero"),
        ("25+7*3=46", 0.0, "malformed at 6"),
        ("25+7*3 ok", 0.0, "malformed at 7"),
        ("", 0.0, "empty"),
    ],
)
def test_verify(text, reward, reason):
    score = verify(text, [25, 3, 7], 46)
    assert score[:3] == (reward, reason == "", reason)


def test_repeated_numbers_count():
    assert verify("5*5-5", [5, 5, 5], 20).correct
    assert verify("5*4", [5, 5, 4], 20).reason == "numbers not used exactly once"


def test_format_reward_is_for_expressions_with_a_value():
    assert countdown(5, 5).score.keywords == {"format_reward": 0.0}
    task = countdown(5, 5, format_reward=0.1)
    rewards = [task.score([task.train[0]], [text])[0].reward for text in ("1+1", "1+", "1/0", "")]
    assert rewards == [0.1, 0.0, 0.0, 0.0]


def test_score_wants_one_response_each(task):
    with pytest.raises(ValueError):
        task.score(task.train[:2], ["1"])


def test_hundred_thousand_hostile_strings_are_scored_in_seconds():
    # In another process, because the type checks of the tests make every call slower.
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.tasks.hostile"]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    measured = json.loads(output)
    assert measured["value_in_a_small_stack"] == 7
    assert measured["scores"] == 100_000
    assert measured["consistent"]
    assert len(measured["reasons"]) >= 8
    assert measured["scoring_seconds"] < 10
    assert measured["generation_seconds"] < 2


def test_scores_agree_with_the_oracle():
    # Texts near the solutions, so that right and wrong ones both occur often.
    rng = random.Random(0)
    correct = 0
    for prompt, solution in itertools.islice(warm_start(5), 600):
        numbers = list(map(int, prompt.split("=")[0].split()))
        target = int(prompt.split("=")[1][:-1])
        text = list(solution)
        if rng.random() < 0.6:
            text[rng.randrange(len(text))] = rng.choice("0123456789+-*/()")
        text = "".join(text)
        try:
            expected = arithmetic.evaluate(text) == (target, sorted(numbers))
        except (SyntaxError, ZeroDivisionError):
            expected = False
        assert verify(text, numbers, target).correct == expected
        correct += expected
    assert 150 < correct < 450


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train": 0}, "num_train"),
        ({"sizes": (1, 2), "weights": (1.0, 1.0)}, "sizes"),
        ({"sizes": (2, 3), "weights": (1.0,)}, "weights"),
        ({"sizes": (2,), "weights": (-1.0,)}, "weights"),
        ({"numbers": (5, 4)}, "numbers"),
        ({"targets": (0, 9)}, "targets"),
        ({"response_tokens": 7}, "response_tokens"),
        ({"format_reward": 1.0}, "format_reward"),
        ({"num_train": 5000, "numbers": (1, 9), "sizes": (2,), "weights": (1.0,)}, "2 numbers"),
        ({"numbers": (90, 99), "targets": (50, 60), "sizes": (2,), "weights": (1.0,)}, "2 numbers"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        countdown(**settings)


def test_own_problems(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"numbers": [3, 25, 7], "target": 46}\n\n{"numbers": [1, 2], "target": 3}\n')
    problems = read_problems(path)
    assert [problem.prompt for problem in problems] == ["3 25 7=46:", "1 2=3:"]
    task = dataclasses.replace(countdown(5, 5), train=problems)
    assert [s.correct for s in task.score(task.train, ["3*7+25", "2-1"])] == [True, False]
    path.write_text('{"numbers": [3], "target": 3}\n{"numbers": 7}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_problems(path)
