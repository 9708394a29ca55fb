"""Verifiers that grade in the run's own process: hostile responses cost nothing and earn nothing.

Mathematics and reasoning-gym grade in workers: tests/tasks/test_math.py, tests/tasks/test_gym.py.
"""

import random

import pytest

from dpsjax.tasks import countdown, operators
from dpsjax.tasks.answers import boxed, final_answer, strictly_tagged
from dpsjax.tasks.base import Problem
from dpsjax.tasks.rewards import RewardScorer
from tests.tasks.attacks import attack

COUNTS = [500, pytest.param(100_000, marks=pytest.mark.slow)]
NEVER = Problem("1 1=999:", {"numbers": [1, 1], "target": 999}, "2 numbers")  # has no solution
CHAIN = Problem("fab3=", "12345678", "")
ROW = Problem("?", {"row": {"answer": "12"}, "prompt": "?", "answer": "12"}, "")


def exact(prompts, completions, answer):
    """What docs/bring_your_own_task.md shows."""
    return [float(text.strip() == right) for text, right in zip(completions, answer, strict=True)]


VERIFIERS = {
    "countdown": (countdown.score, NEVER),
    "countdown in words": (
        lambda problems, texts: countdown.score(problems, [strictly_tagged(t) for t in texts]),
        NEVER,
    ),
    "operators": (operators.score, CHAIN),
    "a reward function": (RewardScorer(("tests.tasks.test_attacks:exact",)), ROW),
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", VERIFIERS)
def test_hostile_responses_earn_nothing(name, count):
    score, problem = VERIFIERS[name]
    rng = random.Random(7)
    for _ in range(count // 500):
        texts = [attack(rng) for _ in range(500)]
        found = score([problem] * 500, texts)
        assert len(found) == 500 and all(s.reason for s in found)
        assert not any(s.reward or s.correct for s in found)


@pytest.mark.parametrize("count", COUNTS)
def test_answers_are_looked_for_in_a_time_that_grows_with_the_text(count):
    rng = random.Random(11)
    for _ in range(count):
        text = attack(rng)
        for find in (boxed, final_answer, strictly_tagged):
            found = find(text)
            assert found is None or found in text
