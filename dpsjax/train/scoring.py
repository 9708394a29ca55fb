"""Scoring that survives the verifier: whatever it does, there is a verdict or none for each."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dpsjax.tasks.base import Problem, Score, Task


class Scored(NamedTuple):
    """Verdicts on responses.

    Attributes:
        scores: one for each response; None where there is no usable verdict.
        errors: what went wrong, in the words of the exception.
    """

    scores: list[Score | None]
    errors: list[str]


def score_safely(task: Task, problems: Sequence[Problem], responses: Sequence[str]) -> Scored:
    """Score responses, whatever the task's verifier does.

    If scoring all of them fails, each run of responses to the same problem is scored by itself, so
    that only those are lost on which it fails.

    Args:
        task: its ``score`` is called.
        problems: one for each response.
        responses: decoded.

    Returns:
        the verdicts; a reward that is not a finite number is none.
    """
    try:
        return Scored(_checked(task, problems, responses), [])
    except Exception as error:  # a verifier is foreign code: anything may come out of it
        first = f"{type(error).__name__}: {error}"
    scores: list[Score | None] = []
    errors: list[str] = []
    for start, stop in _runs(problems):
        try:
            scores += _checked(task, problems[start:stop], responses[start:stop])
        except Exception as error:
            scores += [None] * (stop - start)
            errors.append(f"{type(error).__name__}: {error}")
    return Scored(scores, errors or [first])


def _checked(
    task: Task, problems: Sequence[Problem], responses: Sequence[str]
) -> list[Score | None]:
    scores = list(task.score(problems, responses))
    if len(scores) != len(responses):
        raise ValueError(f"{len(scores)} scores came back for {len(responses)} responses")
    return [
        Score(float(s.reward), bool(s.correct), s.reason) if math.isfinite(s.reward) else None
        for s in scores
    ]


def _runs(problems: Sequence[Problem]) -> Iterator[tuple[int, int]]:
    """Bounds of each run of the same problem."""
    start = 0
    for place in range(1, len(problems) + 1):
        if place == len(problems) or problems[place] is not problems[start]:
            yield start, place
            start = place
