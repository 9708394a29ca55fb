"""Responses that a run keeps for its reader: few, of the same prompts again and again.

Every step makes thousands, and nobody reads them all. Each prompt has a fixed place in a random
order, and of what a step or an evaluation made, those of the first prompts are kept: so the kept
ones come back whenever their prompts do, and no prompt is favoured for what was answered.
"""

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from dpsjax.tasks.base import Problem, Score


class Sample(NamedTuple):
    """How much is kept.

    Attributes:
        prompts: Of each step, and of each evaluation; 0 keeps nothing.
        each: Responses to each of them.
        characters: Of a text; the middle of longer ones is left out.
    """

    prompts: int
    each: int
    characters: int


class Response(NamedTuple):
    """One response and its verdict.

    Attributes:
        prompt: Position of its problem.
        text: As the verifier saw it.
        tokens: Generated, the end of sequence included.
        truncated: Whether it has no end within its limit.
        score: The verdict, None where there is none.
    """

    prompt: int
    text: str
    tokens: int
    truncated: bool
    score: Score | None


def choose(responses: Sequence[Response], sample: Sample) -> list[Response]:
    """The responses to keep.

    Args:
        responses: of a step, in any order.
        sample: how much.

    Returns:
        the first responses to the prompts that come first in the fixed order.

    >>> made = [Response(prompt, "", 1, False, None) for prompt in (4, 9, 4, 7)]
    >>> [response.prompt for response in choose(made, Sample(2, 1, 100))]
    [4, 7]
    """
    of_prompt: dict[int, list[Response]] = {}
    for response in responses:
        of_prompt.setdefault(response.prompt, []).append(response)
    order = sorted(of_prompt, key=lambda prompt: (random.Random(prompt).random(), prompt))
    return [
        found for prompt in order[: sample.prompts] for found in of_prompt[prompt][: sample.each]
    ]


def line_of(
    step: int, split: str, problem: Problem, response: Response, characters: int
) -> dict[str, Any]:
    """A kept response as it is written down.

    Args:
        step: after which it was made, or in which; 0 before the first.
        split: ``"train"``, ``"held-out"``, or ``"held-out greedy"`` for the likeliest response.
        problem: what was asked.
        response: the answer.
        characters: of a text.

    Returns:
        JSON-serialisable; ``reward``, ``correct``, ``answer`` and ``reason`` are None where there
        is no verdict.
    """
    score = response.score
    verdict: dict[str, Any] = dict.fromkeys(("reward", "correct", "answer", "reason"))
    if score is not None:
        verdict = {
            "reward": score.reward if math.isfinite(score.reward) else None,
            "correct": score.correct,
            "answer": shortened(score.answer, characters),
            "reason": shortened(score.reason, characters),
        }
    return {
        "step": step,
        "split": split,
        "prompt": response.prompt,
        "source": problem.source,
        "question": shortened(problem.text(), characters),
        "response": shortened(response.text, characters),
        "tokens": response.tokens,
        "truncated": response.truncated,
        **verdict,
    }


def shortened(text: str, characters: int) -> str:
    """A text without its middle where it is too long: an answer stands at its end.

    >>> shortened("0123456789" * 3, 8)
    '01 [22 characters left out] 456789'
    """
    if len(text) <= characters:
        return text
    first = characters // 4
    left_out = len(text) - characters
    return f"{text[:first]} [{left_out} characters left out] {text[first - characters :]}"
