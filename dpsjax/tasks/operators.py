"""Operator chains: apply made-up functions to a value, one after the other, writing each result.

``fab3=`` asks for b(3), then a of that, then f of that: three values. An operator is a table that
nothing but examples can teach, so a policy knows it by heart or not at all. Each has a right
table and a wrong one that differs from it everywhere. The warm start shows the right one with a
probability of its own for each operator: a base trained on it is wrong by habit, not by noise.

Exactly one response to a prompt is right, so its probability *is* the pass rate: one forward pass
gives it exactly, of every prompt at any step, without a rollout. This is a designed regime, made
to see what the choice of prompts does; it stands for no natural task.
"""

import importlib.resources
import itertools
import operator
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpsjax import checks
from dpsjax.tasks.answers import tagged
from dpsjax.tasks.base import Problem, Score, Task, Words, score_each
from dpsjax.tasks.drawn import DrawnSettings
from dpsjax.tasks.shares import Split, quotas, split_of
from dpsjax.tasks.tokenizer import CharTokenizer

VALUES = 16
OPERATORS = 26
LENGTHS = (2, 3, 4, 5)
WEIGHTS = (1.0, 1.0, 1.0, 1.0)
# How often the warm start of the shipped base applies the right table, by operator.
RIGHT = (1.0,) * 17 + (0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.06, 0.04)
# Of GRPO on the shipped base, 200 steps of 32 x 8: the one that serves a uniform draw best.
LEARNING_RATE = 1e-3

# Of sixteen shares of all problems; there are only values x operators of the shortest chains.
_TEST_SHARES, _TRAIN_SHARES = 4, 8
# After so many draws in a row without a new problem, a length counts as used up.
_MAX_DRAWS = 20_000
_DIGITS, _NAMES = "0123456789ABCDEF", string.ascii_lowercase


@dataclass(frozen=True)
class _Chains:
    """What is drawn; checked once, for the task and the warm start alike."""

    values: int
    operators: int
    lengths: tuple[int, ...]
    weights: tuple[float | int, ...]
    tables: int

    def __post_init__(self):
        checks.require_integers(values=self.values, operators=self.operators, tables=self.tables)
        checks.require_items(int, "an integer", lengths=self.lengths)
        checks.require_items((int, float), "a number", weights=self.weights)
        for name, count, most in (("values", self.values, 16), ("operators", self.operators, 26)):
            checks.require_setting(2 <= count <= most, name, count, f"from 2 to {most}")
        if not self.lengths or not all(1 <= length <= 64 for length in self.lengths):
            raise ValueError(f"lengths must be numbers of operators from 1 to 64: {self.lengths}")
        if len(self.weights) != len(self.lengths):
            raise ValueError(
                f"weights must have one entry for each of lengths={self.lengths}: {self.weights}"
            )
        if not all(0 <= weight < float("inf") for weight in self.weights) or not sum(self.weights):
            raise ValueError(f"weights must be nonnegative, and one positive, got {self.weights}")

    def tokenizer(self) -> CharTokenizer:
        return CharTokenizer(_DIGITS[: self.values] + _NAMES[: self.operators] + "=")

    def draw(self, rng: random.Random, length: int) -> str:
        """A prompt."""
        names = "".join(_NAMES[int(rng.random() * self.operators)] for _ in range(length))
        return f"{names}{_DIGITS[int(rng.random() * self.values)]}="


# [right or wrong][operator][value] -> value
_Tables = list[list[list[int]]]


def operator_chains(
    num_train: int = 2000,
    num_test: int = 1000,
    seed: int = 0,
    *,
    values: int = VALUES,
    operators: int = OPERATORS,
    lengths: Sequence[int] = LENGTHS,
    weights: Sequence[float | int] = WEIGHTS,
    tables: int = 0,
) -> Task:
    """A task of operator chains: the same arguments give the same problems, on every machine.

    Args:
        num_train: number of training problems, all different.
        num_test: number of held-out problems, all different, never a training problem.
        seed: seed of the draw.
        values: how many values there are, 2 to 16, written as hexadecimal digits.
        operators: how many operators there are, 2 to 26, named by letters.
        lengths: how many operators a chain may have.
        weights: share of each of ``lengths``, relative; exact but for rounding, in both splits.
        tables: seed of the operators' tables. A base knows the tables that it was made with.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of range, or there are not that many different problems.

    >>> task = operator_chains(num_train=4, num_test=2)
    >>> problem = task.train[0]
    >>> problem.source, problem.prompt, problem.answer
    ('5 operators', 'lbxwa9=', '8B039')
    """
    checks.require_counts(num_train=num_train)
    checks.require_counts(least=0, num_test=num_test)
    chains = _chains(values, operators, lengths, weights, tables)
    return Task(
        name="operators",
        train=_distinct("train", num_train, seed, chains),
        test=_distinct("test", num_test, seed, chains),
        score=score,
        tokenizer=chains.tokenizer(),
        prompt_tokens=max(chains.lengths) + 2,
        response_tokens=max(chains.lengths) + 1,
        words=Words(operator.attrgetter("prompt"), tagged),
    )


@dataclass(frozen=True)
class OperatorsConfig(DrawnSettings):
    """Operator chains, a designed regime: apply made-up functions to a value, write each result."""

    problems: int = 2000
    """Prompts in the training pool that the selector chooses from."""
    held_out: int = 1000
    """Held-out problems, none of which is a training problem."""
    values: int = VALUES
    """How many values there are."""
    operators: int = OPERATORS
    """How many operators there are."""
    lengths: tuple[int, ...] = LENGTHS
    """How many operators a chain may have."""
    weights: tuple[float, ...] = WEIGHTS
    """Relative frequency of each of the lengths."""
    tables: int = 0
    """Seed of what the operators do; the shipped base knows those of seed 0."""

    draw = staticmethod(operator_chains)

    def base(self) -> Path:
        """The weights that ship with the package for this task."""
        return base_path()


def verify(response: str, answer: str) -> Score:
    """Score one response: it must be the right values, all of them, and nothing else.

    Args:
        response: untrusted.
        answer: of the problem.

    Raises:
        TypeError: an argument is no text.

    >>> verify("50", "50")
    Score(reward=1.0, correct=True, reason='', answer='50')
    >>> verify("57", "50").reason
    'value 2 is 7, not 0'
    """
    checks.require_type(str, "a text", response=response, answer=answer)
    if response == answer:
        return Score(1.0, True, "", response)
    if len(response) != len(answer):
        return Score(0.0, False, f"{len(response)} characters, not {len(answer)} values", response)
    place = next(i for i, pair in enumerate(zip(response, answer, strict=True)) if len({*pair}) > 1)
    return Score(
        0.0, False, f"value {place + 1} is {response[place]}, not {answer[place]}", response
    )


def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
    """``verify`` for each problem and its response.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
    """
    return score_each(lambda problem, text: verify(text, problem.answer), problems, responses)


def warm_start(
    seed: int = 0,
    *,
    right: Sequence[float | int] = RIGHT,
    values: int = VALUES,
    operators: int = OPERATORS,
    lengths: Sequence[int] = LENGTHS,
    weights: Sequence[float | int] = WEIGHTS,
    tables: int = 0,
) -> Iterator[tuple[str, str]]:
    """Endless (prompt, response) pairs for supervised learning, the same for the same arguments.

    None of the prompts is a training or held-out problem of any task of ``operator_chains``.

    Args:
        seed: seed of the draw.
        right: by operator, the probability that it is applied by its right table; drawn anew at
            every place. Where the wrong one is likelier, what is learned is a habit that
            sampling at a lower temperature makes worse.
        values: see :func:`operator_chains`, as the others.
        operators: likewise.
        lengths: likewise.
        weights: likewise.
        tables: likewise.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of range.
    """
    chains = _chains(values, operators, lengths, weights, tables)
    checks.require_items((int, float), "a number", right=right)
    if len(right) != chains.operators or not all(0 <= share <= 1 for share in right):
        raise ValueError(f"right must have a probability for each of the operators, got {right}")
    rng = random.Random(f"operators warm {seed}")
    endless = (rng.choices(chains.lengths, chains.weights)[0] for _ in itertools.count())
    draws = _draws(rng, endless, "warm", chains, distinct=False)
    known = _tables(chains)

    def respond(prompt: str) -> str:
        wrong = [rng.random() >= right[_NAMES.index(name)] for name in prompt[:-2]]
        return _answer(known, prompt, wrong)

    return ((prompt, respond(prompt)) for prompt in draws)


def base_path() -> Path:
    """Where the shipped base policy for the default task lies (safetensors)."""
    return Path(
        str(importlib.resources.files("dpsjax.tasks") / "assets/operators_base.safetensors")
    )


def _chains(values, operators, lengths, weights, tables) -> _Chains:
    checks.require_type(Sequence, "a sequence", lengths=lengths, weights=weights)
    return _Chains(values, operators, tuple(lengths), tuple(weights), tables)


def _tables(chains: _Chains) -> _Tables:
    """The right and the wrong tables; a wrong entry is never the right one."""
    rng, size = random.Random(f"operators tables {chains.tables}"), chains.values
    right = [[int(rng.random() * size) for _ in range(size)] for _ in range(chains.operators)]
    other = lambda value: (value + 1 + int(rng.random() * (size - 1))) % size  # noqa: E731
    return [right, [[other(value) for value in row] for row in right]]


def _answer(tables: _Tables, prompt: str, wrong: Sequence[bool]) -> str:
    """Every value on the way; ``wrong`` says which operators take the wrong table."""
    value, found = _DIGITS.index(prompt[-2]), []
    for name, mistaken in zip(prompt[-3::-1], wrong[::-1], strict=True):
        value = tables[mistaken][_NAMES.index(name)][value]
        found.append(_DIGITS[value])
    return "".join(found)


def _draws(
    rng: random.Random, lengths: Iterable[int], split: Split, chains: _Chains, distinct: bool
) -> Iterator[str]:
    """One prompt of a split for each of ``lengths``."""
    seen: set[str] = set()
    for length in lengths:
        for _ in range(_MAX_DRAWS):
            prompt = chains.draw(rng, length)
            if prompt in seen or split_of(prompt, _TEST_SHARES, _TRAIN_SHARES) != split:
                continue
            if distinct:
                seen.add(prompt)
            yield prompt
            break
        else:
            raise ValueError(
                f"there are not enough different chains of length {length} for "
                f"values={chains.values} and operators={chains.operators}: ask for fewer "
                f"problems, or give lengths={chains.lengths} other weights"
            )


def _distinct(split: Split, count: int, seed: int, chains: _Chains) -> tuple[Problem, ...]:
    """``count`` different problems of a split, in random order."""
    rng = random.Random(f"operators {split} {seed}")
    numbers = quotas(count, chains.weights)
    lengths = [n for n, times in zip(chains.lengths, numbers, strict=True) for _ in range(times)]
    rng.shuffle(lengths)
    known = _tables(chains)
    return tuple(
        Problem(
            prompt=prompt,
            answer=_answer(known, prompt, [False] * (len(prompt) - 2)),
            source=f"{len(prompt) - 2} operator{'s' * (len(prompt) > 3)}",
        )
        for prompt in _draws(rng, lengths, split, chains, distinct=True)
    )
