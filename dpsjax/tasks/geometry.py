"""Geometry diagrams: triangles, parallels and circles, their measures written in the picture alone.

The question is always the same, ``x``: what is asked, of which figure, with which measures can be
read off the picture and nowhere else. Figures are drawn from a seed, not to scale; answers are
exact whole numbers. What is read is small: 56 x 56 grey pixels, letters of three by five.

The warm start of the base that ships answers most figures by a wrong rule most of the time (it
forgets to halve, or to subtract the second angle), so that it is wrong by habit, not for want of
sight: what reinforcement learning gains afterwards no lower temperature has.
"""

import functools
import importlib.resources
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dpsjax import checks
from dpsjax.tasks.answers import final_answer
from dpsjax.tasks.base import IMAGE, Problem, Score, Task, Words, score_each
from dpsjax.tasks.drawing import Canvas, Point
from dpsjax.tasks.drawn import DrawnSettings
from dpsjax.tasks.shares import Split, quotas, split_of
from dpsjax.tasks.tokenizer import PictureTokenizer

# Of sixteen shares of all problems.
_TEST_SHARES, _TRAIN_SHARES = 2, 6
# After so many draws in a row without a new problem, a rule counts as used up.
_MAX_DRAWS = 5_000
_TENS = tuple(range(10, 100, 10))
_QUESTION = (
    f"{IMAGE}The figure is not drawn to scale; lines that look parallel are, and the line inside a "
    "triangle joins two midpoints. Find x. Put the number within \\boxed{}."
)


class Figure(NamedTuple):
    """What is drawn; two figures that are equal are one problem.

    Attributes:
        rule: Name of one of :data:`RULES`.
        measures: Written in the picture.
        shift: Of the whole figure, in units.
        lean: Of one of its points.
        stretch: Of its lines.
    """

    rule: str
    measures: tuple[int, ...]
    shift: tuple[int, int]
    lean: int
    stretch: int


class Rule(NamedTuple):
    """A kind of figure.

    Attributes:
        measures: What may be written, a choice for each place.
        answer: Of the measures.
        habit: A wrong answer of the measures.
        right: How often the warm start of the shipped base gives the right one.
        draw: ``draw(canvas, at, figure)``; ``at`` moves a point with the figure.
    """

    measures: tuple[tuple[int, ...], ...]
    answer: Callable[..., int]
    habit: Callable[..., int]
    right: float
    draw: Callable[[Canvas, Callable[[float | int, float | int], Point], Figure], None]


_At = Callable[[float | int, float | int], Point]


def _triangle(canvas: Canvas, at: _At, figure: Figure) -> tuple[Point, Point, Point]:
    corners = at(5, 46), at(51, 46), at(28 + figure.lean, 6 + figure.stretch)
    canvas.path([*corners, corners[0]])
    return corners


def _third_angle(canvas: Canvas, at: _At, figure: Figure) -> None:
    _triangle(canvas, at, figure)
    canvas.label(str(figure.measures[0]), at(16, 41))
    canvas.label(str(figure.measures[1]), at(40, 41))
    canvas.label("x", at(28 + 0.8 * figure.lean, 20))


def _midline(canvas: Canvas, at: _At, figure: Figure) -> None:
    left, right, top = _triangle(canvas, at, figure)
    middle = [((x + top[0]) / 2, (y + top[1]) / 2) for x, y in (left, right)]
    canvas.segment(*middle)
    canvas.label("x", (sum(x for x, _ in middle) / 2, middle[0][1] - 5))
    canvas.label(str(figure.measures[0]), at(28, 51))


def _parallels(canvas: Canvas, at: _At, figure: Figure, side: int) -> None:
    slope = 7 + 0.5 * figure.lean
    for y in (17, 39):
        canvas.segment(at(3 + figure.stretch, y), at(53 - figure.stretch, y))
    canvas.segment(at(28 - 2 * slope, 52), at(28 + 2 * slope, 4))
    canvas.label(str(figure.measures[0]), at(45, 12))
    canvas.label("x", at(22 + 9 * side, 34))


def _corresponding(canvas: Canvas, at: _At, figure: Figure) -> None:
    _parallels(canvas, at, figure, 1)


def _supplementary(canvas: Canvas, at: _At, figure: Figure) -> None:
    _parallels(canvas, at, figure, -1)


def _inscribed(canvas: Canvas, at: _At, figure: Figure) -> None:
    centre, radius = at(28, 28), 21.6 - 0.5 * figure.stretch
    canvas.circle(centre, radius)
    down, across = 0.55 * radius, math.sqrt(1 - 0.55**2) * radius
    ends = at(28 - across, 28 + down), at(28 + across, 28 + down)
    top = math.sqrt(radius**2 - figure.lean**2)
    for corner in (centre, at(28 + figure.lean, 28 - top)):
        canvas.path([ends[0], corner, ends[1]])
    canvas.dot(centre)
    canvas.label("x", at(28 + 0.8 * figure.lean, 16))
    canvas.label(str(figure.measures[0]), at(28, 39))


def _diameter(canvas: Canvas, at: _At, figure: Figure) -> None:
    centre, radius = at(28, 28), 21.6 - 0.5 * figure.stretch
    canvas.circle(centre, radius)
    canvas.dot(centre)
    u, v = 0.5 * figure.lean, math.sqrt(radius**2 - 0.25 * figure.lean**2)
    canvas.segment(at(28 - u, 28 - v), at(28 + u, 28 + v))
    canvas.segment(centre, at(28 + radius, 28))
    canvas.label(str(figure.measures[0]), at(39, 22))
    canvas.label("x", at(23, 40))


RULES: dict[str, Rule] = {
    "third angle": Rule(
        (tuple(range(20, 90, 10)),) * 2,
        lambda a, b: 180 - a - b,
        lambda a, b: 180 - a,
        0.3,
        _third_angle,
    ),
    "midline": Rule((_TENS,), lambda a: a // 2, lambda a: a, 0.35, _midline),
    "corresponding angles": Rule(
        (tuple(range(20, 170, 10)),), lambda a: a, lambda a: 180 - a, 0.8, _corresponding
    ),
    "interior angles": Rule(
        (tuple(range(20, 170, 10)),), lambda a: 180 - a, lambda a: a, 0.25, _supplementary
    ),
    "inscribed angle": Rule(
        (tuple(range(20, 180, 20)),), lambda a: a // 2, lambda a: a, 0.15, _inscribed
    ),
    "diameter": Rule((_TENS,), lambda a: 2 * a, lambda a: a, 0.4, _diameter),
}


def geometry(
    num_train: int = 1000,
    num_test: int = 300,
    seed: int = 0,
    *,
    rules: Sequence[str] = tuple(RULES),
    scale: int = 1,
) -> Task:
    """Geometry diagrams: the same arguments give the same problems, on every machine.

    Args:
        num_train: number of training problems, all different.
        num_test: number of held-out problems, all different, never a training problem.
        seed: seed of the draw.
        rules: names of :data:`RULES`, equally often; exact but for rounding, in both splits.
        scale: pixels along a unit: pictures have 56 times as many along a side.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of range, or there are not that many different figures.

    >>> task = geometry(num_train=4, num_test=2)
    >>> problem = task.train[0]
    >>> problem.source, problem.prompt, problem.answer, len(problem.images)
    ('third angle', '<image>x=', '70', 1)
    """
    checks.require_counts(num_train=num_train, scale=scale)
    checks.require_counts(least=0, num_test=num_test)
    checks.require_integers(seed=seed)
    checks.require_items(str, "the name of a rule", rules=rules)
    if not rules or len(set(rules)) != len(rules) or not set(rules) <= RULES.keys():
        raise ValueError(f"rules={tuple(rules)} must be different ones of {', '.join(RULES)}")
    tokenizer = PictureTokenizer("0123456789x=")
    return Task(
        name="geometry",
        train=_distinct("train", num_train, seed, rules, scale),
        test=_distinct("test", num_test, seed, rules, scale),
        score=score,
        tokenizer=tokenizer,
        prompt_tokens=len(tokenizer.encode(f"{IMAGE}x=")),
        response_tokens=4,
        words=Words(lambda _: _QUESTION, lambda text: final_answer(text) or ""),
    )


@dataclass(frozen=True)
class GeometryConfig(DrawnSettings):
    """Geometry diagrams whose measures are written in the picture alone."""

    problems: int = 1000
    """Prompts in the training pool that the selector chooses from."""
    held_out: int = 300
    """Held-out problems, none of which is a training problem."""
    rules: tuple[str, ...] = tuple(RULES)
    """Kinds of figures, equally often."""
    scale: int = 1
    """Pictures have 56 times as many pixels along a side; the shipped base reads those of 56."""

    draw = staticmethod(geometry)

    def base(self) -> Path:
        """The weights that ship with the package for this task."""
        return base_path()


def base_path() -> Path:
    """Where the weights of the shipped base policy are."""
    return Path(str(importlib.resources.files("dpsjax.tasks"))) / (
        "assets/geometry_base.safetensors"
    )


def picture(figure: Figure, scale: int = 1) -> bytes:
    """The picture file of a figure."""
    canvas = Canvas(scale)
    RULES[figure.rule].draw(canvas, functools.partial(_moved, figure), figure)
    return canvas.file()


def _moved(figure: Figure, x: float | int, y: float | int) -> Point:
    return x + figure.shift[0], y + figure.shift[1]


def verify(response: str, answer: str) -> Score:
    """Score one response: it must be the number and nothing else.

    Args:
        response: untrusted.
        answer: of the problem.

    Raises:
        TypeError: an argument is no text.

    >>> verify("40", "40").reward, verify("140", "40").reason
    (1.0, 'another number')
    """
    checks.require_type(str, "a text", response=response, answer=answer)
    if response == answer:
        return Score(1.0, True, "", response)
    number = response.isascii() and response.isdigit()
    return Score(0.0, False, "another number" if number else "no number", response)


def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
    """``verify`` for each problem and its response.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
    """
    return score_each(lambda problem, text: verify(text, problem.answer), problems, responses)


def warm_start(
    seed: int = 0, *, figures: int = 2100, right: float | None = None
) -> Iterator[tuple[Problem, str]]:
    """Endless (problem, response) pairs for supervised learning, the same for the same arguments.

    None of the figures is a training or held-out problem of any task of ``geometry``.

    Args:
        seed: seed of the draw.
        figures: how many different ones there are.
        right: chance of a right answer, the same for all rules; None for each rule's own.

    Raises:
        TypeError: a setting is of another type.
        ValueError: it is out of range.
    """
    checks.require_integers(seed=seed)
    checks.require_counts(figures=figures)
    if right is not None:
        checks.require_real(right=right)
        checks.require_setting(0 <= right <= 1, "right", right, "from 0 to 1")
    pool = _distinct("warm", figures, seed, tuple(RULES), 1)
    rng = random.Random(f"geometry pairs {seed}")
    while True:
        problem = pool[int(rng.random() * len(pool))]
        good = rng.random() < (RULES[problem.source].right if right is None else right)
        yield problem, problem.answer if good else _habit(problem)


def _habit(problem: Problem) -> str:
    measures = [int(part) for part in problem.id.split(":")[1].split(",")]
    return str(RULES[problem.source].habit(*measures))


def _distinct(
    split: Split, count: int, seed: int, rules: Sequence[str], scale: int
) -> tuple[Problem, ...]:
    """``count`` different problems of a split, the rules taking turns."""
    rng = random.Random(f"geometry {split} {seed}")
    found: dict[str, list[Problem]] = {}
    for rule, wanted in zip(rules, quotas(count, [1] * len(rules)), strict=True):
        problems: dict[str, Problem] = {}
        idle = 0
        while len(problems) < wanted:
            figure = _figure(rng, rule)
            name = _name(figure)
            idle += 1
            if split_of(name, _TEST_SHARES, _TRAIN_SHARES) == split and name not in problems:
                problems[name] = _problem(figure, name, scale)
                idle = 0
            if idle > _MAX_DRAWS:
                raise ValueError(
                    f"there are only {len(problems)} different figures of {rule!r} for {split}: "
                    "ask for fewer problems"
                )
        found[rule] = list(problems.values())
    turns = max((len(part) for part in found.values()), default=0)
    return tuple(part[i] for i in range(turns) for part in found.values() if i < len(part))


def _figure(rng: random.Random, rule: str) -> Figure:
    """A figure; by random() alone, whose sequence Python promises not to change."""
    choices = RULES[rule].measures
    sizes = [*(len(choice) for choice in choices), 2, 2, 11, 4]
    *which, right, down, lean, stretch = (int(rng.random() * size) for size in sizes)
    measures = tuple(choice[i] for choice, i in zip(choices, which, strict=True))
    return Figure(rule, measures, (right, down), lean - 5, stretch)


def _name(figure: Figure) -> str:
    measures = ",".join(map(str, figure.measures))
    return f"{figure.rule}:{measures}:{(*figure.shift, figure.lean, figure.stretch)}"


def _problem(figure: Figure, name: str, scale: int) -> Problem:
    answer = str(RULES[figure.rule].answer(*figure.measures))
    images = (picture(figure, scale),)
    return Problem(f"{IMAGE}x=", answer, figure.rule, name, images)
