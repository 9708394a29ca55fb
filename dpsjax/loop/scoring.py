"""Scoring that survives the verifier: whatever it does, there is a verdict or none for each."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from dpsjax.tasks.base import LostScores, Problem, Score, Task
from dpsjax.tasks.workers import runs

# The size of a verifier's message that travels to the other processes.
_MESSAGE_BYTES = 256


class Overlong(NamedTuple):
    """DAPO's soft punishment of long responses, in tokens.

    Attributes:
        buffer: Tokens before the limit in which the reward falls.
        penalty: What a response that reaches the limit loses.

    >>> [Overlong(4, 1.0).of(tokens, 10) for tokens in (6, 7, 10)]
    [0.0, -0.25, -1.0]
    """

    buffer: int
    penalty: float

    def of(self, tokens: int, limit: int) -> float:
        """What a response of so many tokens loses; at most 0."""
        return self.penalty * min(limit - self.buffer - tokens, 0) / self.buffer


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
    return Score(float(score.reward), bool(score.correct), str(score.reason), str(score.answer))


def gather_errors(errors: Sequence[str]) -> list[str]:
    """What went wrong in all processes; each process's first message stands for all of its own.

    Args:
        errors: of this process.

    Returns:
        the same in every process, as many as there were in all.
    """
    if jax.process_count() == 1:
        return list(errors)
    own = np.zeros(_MESSAGE_BYTES, np.uint8)
    text = np.frombuffer(errors[0].encode()[: _MESSAGE_BYTES - 4] if errors else b"", np.uint8)
    own[:4] = np.frombuffer(np.int32(len(errors)).tobytes(), np.uint8)
    own[4 : 4 + text.size] = text
    rows = np.reshape(multihost_utils.process_allgather(own), (-1, _MESSAGE_BYTES))
    found = []
    for row in rows.astype(np.uint8):
        message = row[4:].tobytes().rstrip(b"\0").decode(errors="replace")
        found += [message] * int(np.frombuffer(row[:4].tobytes(), np.int32)[0])
    return found
