"""Operator chains: what is drawn, what is right, and what the base was shown."""

from collections import Counter
from itertools import islice

import pytest

from dpsjax.policy import load_weights
from dpsjax.tasks.operators import (
    OPERATORS,
    RIGHT,
    VALUES,
    base_path,
    operator_chains,
    verify,
    warm_start,
)


def steps(prompt, response):
    """(operator, value before, value after) of every step of a chain, by hand."""
    names, value = prompt[:-2], prompt[-2]
    for name, after in zip(reversed(names), response, strict=True):
        yield name, value, after
        value = after


def learned(pairs):
    """What a reader of examples knows: operator and value -> the values seen after it."""
    known = {}
    for prompt, response in pairs:
        for name, before, after in steps(prompt, response):
            known.setdefault((name, before), Counter())[after] += 1
    return known


@pytest.fixture(scope="module")
def task():
    return operator_chains(400, 200)


def test_the_same_arguments_give_the_same_problems(task):
    assert operator_chains(400, 200).fingerprint() == task.fingerprint()
    assert operator_chains(400, 200, seed=1).fingerprint() != task.fingerprint()
    assert operator_chains(400, 200, tables=1).train[0].prompt == task.train[0].prompt
    assert operator_chains(400, 200, tables=1).fingerprint() != task.fingerprint()


def test_splits_share_no_prompt_whatever_the_seeds(task):
    train = {p.prompt for p in task.train} | {p.prompt for p in operator_chains(400, 0, 5).train}
    test = {p.prompt for p in task.test} | {p.prompt for p in operator_chains(1, 200, 9).test}
    warm = {prompt for prompt, _ in islice(warm_start(3), 3000)}
    assert not train & test and not train & warm and not test & warm
    assert len({p.prompt for p in task.train}) == 400


def test_lengths_have_their_shares():
    task = operator_chains(100, 0, lengths=(1, 3), weights=(1, 3))
    assert Counter(p.source for p in task.train) == {"1 operator": 25, "3 operators": 75}
    for problem in task.train:
        assert len(problem.prompt) == len(problem.answer) + 2 <= task.prompt_tokens
        assert len(problem.answer) < task.response_tokens


def test_answers_are_what_right_examples_teach(task):
    known = learned(islice(warm_start(right=(1.0,) * OPERATORS), 3000))
    assert len(known) == OPERATORS * VALUES and all(len(seen) == 1 for seen in known.values())
    for problem in task.train + task.test:
        for name, before, after in steps(problem.prompt, problem.answer):
            assert known[name, before] == {after: known[name, before].total()}


def test_wrong_tables_differ_everywhere_and_come_as_often_as_asked():
    right = learned(islice(warm_start(right=(1.0,) * OPERATORS), 3000))
    wrong = learned(islice(warm_start(right=(0.0,) * OPERATORS), 3000))
    assert all(len(seen) == 1 and not seen & right[step] for step, seen in wrong.items())
    shown = learned(islice(warm_start(), 4000))
    for letter, share in zip("abcdefghijklmnopqrstuvwxyz", RIGHT, strict=True):
        rows = [(step, seen) for step, seen in shown.items() if step[0] == letter]
        total = sum(seen.total() for _, seen in rows)
        hits = sum(seen[next(iter(right[step]))] for step, seen in rows)
        assert abs(hits - share * total) <= 5 * (share * (1 - share) * total) ** 0.5


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("501", ""),
        ("50", "2 characters, not 3 values"),
        ("5010", "4 characters, not 3 values"),
        ("511", "value 2 is 1, not 0"),
        ("", "0 characters, not 3 values"),
        ("\N{FULLWIDTH DIGIT FIVE}01", "value 1 is \N{FULLWIDTH DIGIT FIVE}, not 5"),
        (" 501", "4 characters, not 3 values"),
        ("5" * 100_000, "100000 characters, not 3 values"),
    ],
)
def test_one_response_is_right(response, reason):
    score = verify(response, "501")
    assert score[:3] == (float(not reason), not reason, reason)


def test_a_task_scores_each_problem_by_its_own_answer(task):
    problems, answers = task.train[:3], [p.answer for p in task.train[:3]]
    assert [s.correct for s in task.score(problems, answers)] == [True] * 3
    assert not task.score(problems[:1], answers[1:2])[0].correct
    with pytest.raises(ValueError, match="give one each"):
        task.score(problems, answers[:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": 17}, "values=17 must be from 2 to 16"),
        ({"operators": 1}, "operators=1 must be from 2 to 26"),
        ({"lengths": (0, 2), "weights": (1, 1)}, "from 1 to 64"),
        ({"weights": (1.0,)}, "one entry for each of lengths"),
        ({"weights": (1.0, 1.0, 1.0, float("nan"))}, "must be nonnegative"),
        ({"num_train": 300, "lengths": (1,), "weights": (1,)}, "not enough different chains"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        operator_chains(**{"num_train": 10, "num_test": 10, **settings})


def test_a_warm_start_needs_a_probability_for_each_operator():
    with pytest.raises(ValueError, match="a probability for each of the operators"):
        warm_start(right=(0.5,) * 25)


def test_the_shipped_base_speaks_the_default_task():
    policy, _ = load_weights(base_path())
    assert policy.vocab_size == operator_chains(1, 1).tokenizer.vocab_size
    assert base_path().stat().st_size < 2_000_000
