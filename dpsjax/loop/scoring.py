"""Scoring that survives the verifier: whatever it does, there is a verdict or none for each."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dpsjax.tasks.base import LostScores, Problem, Score, Task
from dpsjax.tasks.workers import runs


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
    except LostScores as lost:
        kept = [None if score is None else _usable(score) for score in lost.scores]
        return Scored(kept, lost.errors)
    except Exception as error:  # a verifier is foreign code: anything may come out of it
        first = f"{type(error).__name__}: {error}"
    scores: list[Score | None] = []
    errors: list[str] = []
    for start, stop in runs(problems):
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
    return [_usable(score) for score in scores]


def _usable(score: Any) -> Score | None:
    if not math.isfinite(score.reward):
        return None
    return Score(float(score.reward), bool(score.correct), score.reason)
