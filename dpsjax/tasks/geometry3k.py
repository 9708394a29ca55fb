r"""Geometry3k (Lu et al. 2021, arXiv 2105.04165): problems of school geometry with diagrams.

From the original folders (``1/data.json`` and ``1/img_diagram.png`` and so on) or from Parquet with
the columns ``images``, ``problem`` and ``answer``, for a Qwen2.5-VL folder. The reward is that of
the published DPS runs: 1 for a right answer in ``\boxed{}``, else 0.1 for a response of the form
that was asked for.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from dpsjax import checks
from dpsjax.tasks.answers import boxed
from dpsjax.tasks.base import Problem, Score, Task, score_each
from dpsjax.tasks.math import MathConfig, grade_any

# As verl's and EasyR1's preparation of the data asks.
SUFFIX = (
    " You FIRST think about the reasoning process as an internal monologue and then provide the "
    "final answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final "
    "answer MUST BE put in \\boxed{}."
)
_FORM = ("<think>", "</think>", "\\boxed{", "}")
_FORM_REWARD = 0.1


@dataclass(frozen=True)
class Geometry3kConfig(MathConfig):
    """Geometry3k and other problems with pictures, graded by math-verify."""

    suffix: str = SUFFIX
    """Put after each question."""

    def build(self) -> Task:
        """The task.

        Raises:
            ValueError: a row or a setting is wrong, or no problem has a picture.
            OSError: a file cannot be read.
            ImportError: the extra ``math`` is not installed.
        """
        task = super().build()
        if not any(problem.images for problem in task.train):
            raise ValueError(
                "task.train: no problem has a picture: give folders of Geometry3k, or a column "
                "of images"
            )
        return dataclasses.replace(task, name="geometry3k", score=score)


def well_formed(response: str) -> bool:
    r"""Whether a response thinks first, in tags, and then puts an answer into ``\boxed{}``.

    >>> well_formed("<think>2 x 30</think> It is \\boxed{60}."), well_formed("\\boxed{60}")
    (True, False)
    """
    checks.require_type(str, "the text of a response", response=response)
    place = 0 if response.startswith(_FORM[0]) else -1
    for mark in _FORM:
        place = -1 if place < 0 else response.find(mark, place)
        place += len(mark) if place >= 0 else 0
    return place >= 0


def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
    r"""Grade what stands in the last ``\boxed{}``; in workers, see :func:`dpsjax.tasks.math.grade`.

    Args:
        problems: of a :class:`Geometry3kConfig`.
        responses: one for each.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
        ImportError: the extra ``math`` is not installed.
    """
    import math_verify  # noqa: F401 - a worker that has not got it must fail at its start

    def judge(problem: Problem, response: str) -> Score:
        found = grade_any(boxed(response), problem.answer["references"])
        formed = not found.correct and well_formed(response)
        return found._replace(reward=_FORM_REWARD) if formed else found

    return score_each(judge, problems, responses)
