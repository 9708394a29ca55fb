"""Countdown: write an expression that uses each given number once and equals the target.

A problem is a multiset of numbers with a target; ``3 25 7=46:`` asks for an expression such as
``25+7*3``. Two problems with the same multiset and target are the same problem, whatever the
order of the numbers. The sha256 of that identity assigns every possible problem for ever to one
of three shares: held-out problems, training problems, and problems for a supervised warm start.
So no seed and no setting can make them overlap.

Every problem comes from a random expression over all of its numbers, hence is solvable.
"""

import functools
import importlib.resources
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dpsjax import checks
from dpsjax.tasks.answers import strictly_tagged, tagged
from dpsjax.tasks.base import Problem, Score, Task, Words, score_each
from dpsjax.tasks.drawn import DrawnSettings
from dpsjax.tasks.expression import ExpressionError, evaluate
from dpsjax.tasks.shares import Split, quotas, split_of
from dpsjax.tasks.solution import random_tree, write
from dpsjax.tasks.tokenizer import CharTokenizer

# The default pool is what the shipped base can be taught: see experiments/make_countdown_base.py.
# It was made to add, so that most small problems are solved or never solved at first, and others
# come within reach as it learns to subtract, to multiply and to divide.
NUM_TRAIN, NUM_TEST = 500, 500
SIZES = (2, 3, 4)
WEIGHTS = (0.5, 0.25, 0.25)
NUMBERS = (1, 50)
TARGETS = (1, 999)
RESPONSE_TOKENS = 14

TOKENIZER = CharTokenizer("0123456789+-*/() =:")
# The prompt of TinyZero (Apache 2.0), word for word: the published runs use it.
QUESTION = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic "
    "arithmetic operations (+, -, *, /) and each number can only be used once. Show your work in "
    "<think> </think> tags. And return the final answer in <answer> </answer> tags, for example "
    "<answer> (1 + 2) / 3 </answer>."
)
# Around it, for a model without a chat template.
FRAME = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer.\nUser: {question}\nAssistant: Let me solve this step by step.\n<think>"
)

Tags = Literal["required", "optional"]
_ANSWERS = {"required": strictly_tagged, "optional": tagged}

# Of sixteen shares of all problems: how many are held out, and how many are for training.
_TEST_SHARES, _TRAIN_SHARES = 2, 8
# After so many draws in a row without a new problem, a size counts as used up.
_MAX_DRAWS = 20_000


@dataclass(frozen=True)
class _Difficulty:
    """What is drawn; checked once, for the task and the warm start alike."""

    sizes: tuple[int, ...]
    weights: tuple[float | int, ...]
    numbers: tuple[int, int]
    targets: tuple[int, int]
    response_tokens: int

    def __post_init__(self):
        checks.require_items(int, "an integer", sizes=self.sizes)
        checks.require_items(int, "an integer", numbers=self.numbers, targets=self.targets)
        checks.require_items((int, float), "a number", weights=self.weights)
        checks.require_integers(response_tokens=self.response_tokens)
        if not self.sizes or not all(2 <= size <= 8 for size in self.sizes):
            raise ValueError(f"sizes must be counts of numbers from 2 to 8, got {self.sizes}")
        if len(self.weights) != len(self.sizes):
            raise ValueError(
                f"weights must have one entry for each of sizes={self.sizes}, got {self.weights}"
            )
        if not all(0 <= weight < float("inf") for weight in self.weights) or not sum(self.weights):
            raise ValueError(f"weights must be nonnegative, and one positive, got {self.weights}")
        for name, ends in (("numbers", self.numbers), ("targets", self.targets)):
            if len(ends) != 2 or not 1 <= ends[0] <= ends[1] <= 9999:
                raise ValueError(
                    f"{name} must be (low, high) with 1 <= low <= high <= 9999, got {ends}"
                )
        shortest = max(self.sizes) * (len(str(self.numbers[0])) + 1)
        if self.response_tokens < shortest:
            raise ValueError(
                f"response_tokens={self.response_tokens} holds no solution with "
                f"{max(self.sizes)} numbers; give at least {shortest}"
            )

    def prompt_tokens(self) -> int:
        """Length of the longest prompt these settings can produce."""
        longest = self.numbers[1], self.targets[1]
        return len(_prompt([longest[0]] * max(self.sizes), longest[1]))


def countdown(
    num_train: int = NUM_TRAIN,
    num_test: int = NUM_TEST,
    seed: int = 0,
    *,
    sizes: Sequence[int] = SIZES,
    weights: Sequence[float] = WEIGHTS,
    numbers: tuple[int, int] = NUMBERS,
    targets: tuple[int, int] = TARGETS,
    response_tokens: int = RESPONSE_TOKENS,
    format_reward: float = 0.0,
    tags: Tags = "required",
) -> Task:
    """A Countdown task: the same arguments give the same problems, on every machine.

    Args:
        num_train: number of training problems, all different.
        num_test: number of held-out problems, all different, never a training problem.
        seed: seed of the draw.
        sizes: how many numbers a problem may have.
        weights: share of each of ``sizes``, relative; exact but for rounding, in both splits.
        numbers: smallest and largest number.
        targets: smallest and largest target.
        response_tokens: budget of a response; problems without a solution that fits are not drawn.
        format_reward: reward of an expression that has a value but is wrong. The published
            Countdown runs of DPS use 0.1; the default rewards accuracy alone.
        tags: whether a model of language must put its answer in answer tags, as in those runs.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of range, or there are not that many different problems.

    >>> task = countdown(num_train=4, num_test=2)
    >>> problem = task.train[0]
    >>> problem.source, problem.prompt
    ('3 numbers', '29 35 31=95:')
    """
    _require_format_reward(format_reward)
    checks.require_counts(num_train=num_train)
    checks.require_counts(least=0, num_test=num_test)
    checks.require_choice(tuple(_ANSWERS), tags=tags)
    difficulty = _difficulty(sizes, weights, numbers, targets, response_tokens)
    return Task(
        name="countdown",
        train=_distinct("train", num_train, seed, difficulty),
        test=_distinct("test", num_test, seed, difficulty),
        score=functools.partial(score, format_reward=format_reward),
        tokenizer=TOKENIZER,
        prompt_tokens=difficulty.prompt_tokens(),
        response_tokens=response_tokens,
        words=Words(question, _ANSWERS[tags], FRAME),
    )


@dataclass(frozen=True)
class CountdownConfig(DrawnSettings):
    """Countdown: write an expression that uses each given number once and equals the target."""

    problems: int = NUM_TRAIN
    """Prompts in the training pool that the selector chooses from."""
    held_out: int = NUM_TEST
    """Held-out problems, none of which is a training problem."""
    sizes: tuple[int, ...] = SIZES
    """How many numbers a problem may have."""
    weights: tuple[float, ...] = WEIGHTS
    """Relative frequency of each of the sizes."""
    numbers: tuple[int, int] = NUMBERS
    """Smallest and largest number."""
    targets: tuple[int, int] = TARGETS
    """Smallest and largest target."""
    response_tokens: int = RESPONSE_TOKENS
    """Longest response."""
    format_reward: float = 0.0
    """Reward of a well-formed but wrong expression (the published runs: 0.1)."""
    tags: Tags = "required"
    """Whether a language model must put its answer in <answer> tags, as in the published runs; else
    a response without them is taken whole. The small policies answer with the expression alone."""

    draw = staticmethod(countdown)

    def base(self) -> Path:
        """The weights that ship with the package for this task."""
        return base_path()


# The pools of the DPS paper's Countdown experiments; the shipped base is not made for them.
PUBLISHED = {"numbers": (1, 99), "targets": (1, 99), "format_reward": 0.1}
CD34 = {"sizes": (3, 4), "weights": (0.5, 0.5), **PUBLISHED}
CD4 = {"sizes": (4,), "weights": (1.0,), **PUBLISHED}


def question(problem: Problem) -> str:
    """A problem in words, as the published runs ask it.

    Raises:
        TypeError: ``problem`` is none.
    """
    checks.require_type(Problem, "a Problem", problem=problem)
    numbers = ", ".join(map(str, problem.answer["numbers"]))
    return QUESTION.format(numbers=f"[{numbers}]", target=problem.answer["target"])


def verify(
    expression: str, numbers: Sequence[int], target: int, format_reward: float = 0.0
) -> Score:
    """Score one response: the whole of it must be one expression, exactly equal to the target.

    Args:
        expression: the response, untrusted; nothing but spaces may stand around the expression.
        numbers: each must be used exactly once; a unary minus does not change which it is.
        target: required value.
        format_reward: reward of an expression that has a value but is wrong.

    Raises:
        TypeError: ``expression`` is no text, or ``numbers`` or ``target`` no integers.
        ValueError: ``format_reward`` is out of range.

    >>> verify("3*7+25", [3, 25, 7], 46)
    Score(reward=1.0, correct=True, reason='', answer='3*7+25')
    >>> verify("25-7-3", [3, 25, 7], 46).reason
    'wrong value 15'
    """
    checks.require_type(str, "the text of a response", expression=expression)
    checks.require_items((int, np.integer), "an integer", numbers=numbers)
    checks.require_integers(target=target)
    _require_format_reward(format_reward)
    try:
        value, used = evaluate(expression)
    except ExpressionError as error:
        return Score(0.0, False, str(error))
    if sorted(used) != sorted(numbers):
        return Score(format_reward, False, "numbers not used exactly once", expression)
    if value != target:
        return Score(format_reward, False, f"wrong value {value}", expression)
    return Score(1.0, True, "", expression)


def score(
    problems: Sequence[Problem], responses: Sequence[str], *, format_reward: float = 0.0
) -> list[Score]:
    """``verify`` for each problem and its response.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ, or ``format_reward`` is out of range.
    """

    def judge(problem: Problem, response: str) -> Score:
        answer = problem.answer
        return verify(response, answer["numbers"], answer["target"], format_reward)

    return score_each(judge, problems, responses)


def warm_start(
    seed: int = 0,
    *,
    sizes: Sequence[int] = SIZES,
    weights: Sequence[float] = WEIGHTS,
    numbers: tuple[int, int] = NUMBERS,
    targets: tuple[int, int] = TARGETS,
    response_tokens: int = RESPONSE_TOKENS,
) -> Iterator[tuple[str, str]]:
    """Endless (prompt, solution) pairs for supervised learning, the same for the same arguments.

    None of them is a training or held-out problem of any ``countdown`` task. The solution is a
    canonical expression (`dpsjax.tasks.solution`).

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of range.
    """
    difficulty = _difficulty(sizes, weights, numbers, targets, response_tokens)
    rng = random.Random(f"countdown warm {seed}")
    endless = (rng.choices(difficulty.sizes, difficulty.weights)[0] for _ in itertools.count())
    draws = _draws(rng, endless, "warm", difficulty, distinct=False)
    return ((_prompt(numbers, target), solution) for numbers, target, solution in draws)


def read_problems(path: str | Path) -> tuple[Problem, ...]:
    """Problems from a JSON-lines file with ``{"numbers": [3, 25, 7], "target": 46}`` a line.

    Solvability is not checked. Put them in a task with ``dataclasses.replace(task, train=...)``,
    and set ``prompt_tokens`` to their longest prompt.

    Raises:
        ValueError: a line is not such a problem; the message has its number.
    """
    problems = []
    for line_number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            numbers, target = row["numbers"], row["target"]
            if not numbers or not all(type(number) is int for number in (*numbers, target)):
                raise ValueError("numbers and target must be integers")
            problems.append(_problem(numbers, target))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {line_number}: want "
                f'{{"numbers": [3, 25, 7], "target": 46}}, got {line[:80]!r}'
            ) from error
    return tuple(problems)


def base_path() -> Path:
    """Where the shipped base policy for the default task lies (safetensors)."""
    return Path(
        str(importlib.resources.files("dpsjax.tasks") / "assets/countdown_base.safetensors")
    )


def _require_format_reward(format_reward: float) -> None:
    checks.require_real(format_reward=format_reward)
    if not 0.0 <= format_reward < 1.0:
        raise ValueError(f"format_reward must be in [0, 1), got {format_reward}")


def _difficulty(sizes, weights, numbers, targets, response_tokens) -> _Difficulty:
    checks.require_type((Sequence, np.ndarray), "a sequence", sizes=sizes, weights=weights)
    return _Difficulty(tuple(sizes), tuple(weights), numbers, targets, response_tokens)


def _prompt(numbers: Sequence[int], target: int) -> str:
    return f"{' '.join(map(str, numbers))}={target}:"


def _problem(numbers: Sequence[int], target: int) -> Problem:
    return Problem(
        prompt=_prompt(numbers, target),
        answer={"numbers": list(numbers), "target": target},
        source=f"{len(numbers)} numbers",
    )


def _identity(numbers: Sequence[int], target: int) -> str:
    """What two equal problems share."""
    return _prompt(sorted(numbers), target)


def _draws(
    rng: random.Random, sizes: Iterable[int], split: Split, difficulty: _Difficulty, distinct: bool
) -> Iterator[tuple[list[int], int, str]]:
    """One (numbers, target, solution) of a split for each of ``sizes``."""
    first, last = difficulty.numbers
    low, high = difficulty.targets
    seen: set[str] = set()
    for size in sizes:
        for _ in range(_MAX_DRAWS):
            numbers = [first + int(rng.random() * (last - first + 1)) for _ in range(size)]
            tree = random_tree(rng, numbers)
            if not low <= tree.value <= high:
                continue
            identity = _identity(numbers, tree.value)
            if identity in seen or split_of(identity, _TEST_SHARES, _TRAIN_SHARES) != split:
                continue
            solution = write(tree)
            if len(solution) < difficulty.response_tokens:  # the end of sequence needs one too
                if distinct:
                    seen.add(identity)
                yield numbers, tree.value, solution
                break
        else:
            raise _exhausted(size, difficulty)


def _distinct(split: Split, count: int, seed: int, difficulty: _Difficulty) -> tuple[Problem, ...]:
    """``count`` different problems of a split, in random order."""
    rng = random.Random(f"countdown {split} {seed}")
    shares = quotas(count, difficulty.weights)
    sizes = [size for size, n in zip(difficulty.sizes, shares, strict=True) for _ in range(n)]
    rng.shuffle(sizes)
    draws = _draws(rng, sizes, split, difficulty, distinct=True)
    return tuple(_problem(numbers, target) for numbers, target, _ in draws)


def _exhausted(size: int, difficulty: _Difficulty) -> ValueError:
    return ValueError(
        f"there are not enough different problems with {size} numbers for "
        f"numbers={difficulty.numbers}, targets={difficulty.targets} and "
        f"response_tokens={difficulty.response_tokens}; widen them or ask for fewer problems"
    )
