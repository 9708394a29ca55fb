r"""Mathematics: problems with an answer that is a number, an expression, a set or a word.

A policy is asked as in the published runs and answers in ``\boxed{}``. What it wrote is compared
with the reference by ``math-verify`` (extra ``math``), in processes of their own with a deadline
(:mod:`dpsjax.tasks.workers`): symbolic algebra on hostile text may hang, or die.
"""

import dataclasses
import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from dpsjax import checks
from dpsjax.tasks.answers import MAX_CHARACTERS, final_answer
from dpsjax.tasks.base import Problem, Score, Task, score_each
from dpsjax.tasks.data.texts import text_task
from dpsjax.tasks.jsonl import FileSettings

# As DeepScaleR and the DPS scripts ask.
SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."
_MAX_DEPTH = 24
# A decimal, with a power of ten as LaTeX or as programs write it.
_DECIMAL = re.compile(
    r"([+-]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60}))"
    r"(?:(?:\\times|\\cdot|\*)10\^\{?([+-]?[0-9]{1,3})\}?|[eE]([+-]?[0-9]{1,3}))?"
)
_BASED = re.compile(r"([+-]?[0-9][0-9A-Za-z]{0,39})_\{?([0-9]{1,2})\}?")
_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\{([^{}]*)\}")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\\])(\d+(?:\.\d+)?)[eE]([+-]?\d+)\b")


@dataclass(frozen=True)
class MathConfig(FileSettings):
    r"""Mathematics from files (MATH, DeepScaleR, AIME, ...), graded by math-verify."""

    suffix: str = SUFFIX
    """Put after each question."""
    unanswered: Literal["error", "skip"] = "error"
    """What becomes of rows without an answer: an error, or they are left out."""

    def build(self) -> Task:
        """The task.

        Raises:
            ValueError: a row or a setting is wrong.
            OSError: a file cannot be read.
            ImportError: the extra ``math`` is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise ImportError("mathematics needs math-verify: pip install 'dpsjax[math]'")
        skip = self.unanswered == "skip"
        train, test = (_answered(pool, skip) for pool in self.pools())
        return text_task("math", (train, test), score, self.response_tokens, isolated=True)


def references(value: Any) -> list[str]:
    r"""A reference answer as texts, any of which is right.

    Args:
        value: a text, a number, or a list of them, as Minerva has several forms of an answer; of a
            solution in words, the boxed part counts.

    Raises:
        TypeError: it is something else.

    >>> references(142.0), references(["$2$.", "$3$\n", "2"]), references(r"so \boxed{x}")
    (['142'], ['2', '3'], ['x'])
    """
    checks.require_type((str, int, float, list, tuple), "a text or number", value=value)
    if isinstance(value, list | tuple):
        found = (text for item in value for text in references(item))
        return list(dict.fromkeys(found))
    if isinstance(value, float) and value.is_integer():
        return [str(int(value))]
    text = str(value).strip()
    boxed = final_answer(text) if "boxed{" in text else None
    text = (boxed or text).removesuffix(".").strip("$").strip()
    return [text] if text else []


def grade(answer: str | None, reference: str) -> Score:
    """Compare an answer with the reference, in this process: it may not come back.

    Args:
        answer: what was taken for the answer, untrusted; None where there is none.
        reference: one of :func:`references`.

    Returns:
        reward 1 and correct where they are equal, else 0.

    Raises:
        TypeError: an argument is no text.
        ImportError: the extra ``math`` is not installed.

    >>> grade(None, "3").reason
    'no answer'
    """
    checks.require_type(str, "a text", reference=reference)
    if answer is None:
        return Score(0.0, False, "no answer")
    checks.require_type(str, "a text or None", answer=answer)
    if len(answer) > MAX_CHARACTERS:
        return Score(0.0, False, "answer too long", answer[:100])
    if _depth(answer) > _MAX_DEPTH:  # parsers take exponential time on it
        return Score(0.0, False, "answer nested too deeply", answer)
    if not reference or _plain(answer) == _plain(reference):
        same = bool(reference)
        return Score(float(same), same, "" if same else "no reference", answer)
    digits = _based(answer), _based(reference)
    if None not in digits:
        same = digits[0] == digits[1]
        return Score(float(same), same, "" if same else "another value", answer)
    found, wanted = _number(answer), _number(reference)
    if found is not None and wanted is not None:
        same = _close(found, wanted)
        return Score(float(same), same, "" if same else "another value", answer)
    try:
        same = _equal(_readable(answer), _readable(reference))
    except RecursionError:
        return Score(0.0, False, "answer nested too deeply", answer)
    except MemoryError:
        raise  # no verdict: it is counted as an error
    except Exception as error:  # sympy raises all kinds on what cannot be compared
        return Score(0.0, False, f"cannot be compared ({type(error).__name__})", answer)
    return Score(float(same), same, "" if same else "another value", answer)


def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
    """Grade the answers of whole responses; in workers, see :func:`grade`.

    Args:
        problems: of a :class:`MathConfig`.
        responses: one for each.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
        ImportError: the extra ``math`` is not installed.
    """
    import math_verify  # noqa: F401 - a worker that has not got it must fail at its start

    def judge(problem: Problem, response: str) -> Score:
        return grade_any(final_answer(response), problem.answer["references"])

    return score_each(judge, problems, responses)


def grade_any(answer: str | None, references: Sequence[str]) -> Score:
    """:func:`grade` by the reference that an answer equals, else by the last.

    Args:
        answer: as for :func:`grade`.
        references: of :func:`references`, at least one.

    Raises:
        TypeError: an argument is no text.
        ValueError: there is no reference.
    """
    checks.require_items(str, "a text", references=references)
    if not references:
        raise ValueError("references=[] must hold at least one")
    verdicts = (grade(answer, reference) for reference in references)
    verdict = next(verdicts)
    while not verdict.correct and (other := next(verdicts, None)):
        verdict = other
    return verdict


def _answered(problems: Sequence[Problem], skip: bool) -> tuple[Problem, ...]:
    """The problems with their references; of rows without an answer none, or an error."""
    found, without = [], []
    for problem in problems:
        value = problem.answer["answer"]
        right = [] if value is None else references(value)
        if right:
            found.append(dataclasses.replace(problem, answer={"references": right}))
        else:
            without.append(problem)
    if without and not (skip and found):
        raise ValueError(
            f"{len(without)} of {len(problems)} problems have no answer, the first is "
            f"{without[0].id!r} with the columns {', '.join(without[0].answer['row'])}; name that "
            "of the answer with --task.answer-field, or leave such rows out with "
            "--task.unanswered skip"
        )
    return tuple(found)


def _depth(text: str) -> int:
    """How deep brackets of any kind stand in each other; those that are never closed count too."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}" and depth > 0)
        deepest = max(deepest, depth)
    return deepest


def _plain(text: str) -> str:
    """A text without what says nothing; equal ones need no algebra."""
    for mark in ("\\left", "\\right", "\\!", "\\,", "\\;", "$", " ", "\n"):
        text = text.replace(mark, "")
    for name, other in (
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\varnothing", "\\emptyset"),
    ):
        text = text.replace(name, other)
    return _WORDS.sub(r"\1", text).rstrip(".")


def _number(text: str) -> Fraction | None:
    """The value of a decimal, with a power of ten or not; of anything else None."""
    found = _DECIMAL.fullmatch(text.replace(" ", "").strip("$").replace("{,}", ""))
    if found is None:
        return None
    return Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3] or 0)


def _based(text: str) -> int | str | None:
    """The value of digits with their base below, such as 12_5; of anything else None.

    Digits that their base has not got stay as they are.
    """
    found = _BASED.fullmatch(text.replace(" ", "").strip("$"))
    if found is None:
        return None
    try:
        return int(found[1], int(found[2]) or 1)  # to base 0 Python guesses
    except ValueError:
        return f"{found[1]}_{found[2]}"


def _close(one: Fraction, other: Fraction) -> bool:
    """Whole numbers must be the same; others within a millionth, as decimals are rounded.

    The difference is relative: math-verify rounds to six places, where 1e-9 is 2e-9.
    """
    if one.denominator == other.denominator == 1:
        return one == other
    return abs(one - other) * 1_000_000 <= max(abs(one), abs(other))


def _readable(text: str) -> str:
    """A text in the forms that math-verify reads."""
    return _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)


def _equal(answer: str, reference: str) -> bool:
    # Its own timeouts are signals, which fail outside a main thread: the worker has a deadline.
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    gold, found = (
        math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=0) for text in (reference, answer)
    )
    if not math_verify.verify(gold, found, timeout_seconds=None, raise_on_error=True):
        return False
    percent = any(sign in answer + reference for sign in ("%", "percent"))
    return percent or not _apart(gold, found)


def _apart(gold: list, found: list) -> bool:
    """Whether two values are far from each other, though equal when rounded to six places."""
    numbers = [item[0] for item in (gold, found) if item and getattr(item[0], "is_number", False)]
    if len(numbers) < 2:
        return False
    one, other = (complex(number.evalf(30)) for number in numbers)
    return abs(one - other) > 1e-6 * max(abs(one), abs(other))
