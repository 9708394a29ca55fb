"""Reward functions as users have them: ``reward(prompts, completions, **columns) -> list[float]``.

The signature is that of TRL's trainers. ``columns`` are those of the data, a list each, as long as
the completions; where prompts are conversations, a completion is the message of the assistant.
"""

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsjax import checks
from dpsjax.tasks.base import Problem, Score
from dpsjax.tasks.registry import load

# Sums of weighted rewards round.
_SLACK = 1e-9


@dataclass(frozen=True)
class RewardScorer:
    """A scorer made of reward functions; it can be sent to other processes.

    Attributes:
        rewards: ``module:function``, at least one.
        weights: of each; all 1 if empty.
        correct: ``module:function`` of the same signature that says what is solved (true, or at
            least a half); "" to go by the threshold.
        threshold: a response whose weighted reward reaches it is correct.
    """

    rewards: tuple[str, ...]
    weights: tuple[float | int, ...] = ()
    correct: str = ""
    threshold: float | int = 1.0

    def __post_init__(self):
        checks.require_items(str, "module:function", rewards=self.rewards)
        checks.require_items((int, float), "a number", weights=self.weights)
        checks.require_type(str, "module:function", correct=self.correct)
        checks.require_finite(threshold=self.threshold)
        if not self.rewards:
            raise ValueError("rewards: give --task.reward my_module:my_function")
        if self.weights and len(self.weights) != len(self.rewards):
            raise ValueError(
                f"weights={self.weights} must be one for each of the {len(self.rewards)} rewards"
            )
        if not all(math.isfinite(weight) for weight in self.weights):
            raise ValueError(f"weights={self.weights} must be finite")

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        """Score responses; one that some function gives no verdict on has those of the others.

        Raises:
            ValueError: a function returns something else than a number or None for each.
        """
        if not problems:
            return []
        columns = [
            values_of(place, function, problems, responses) for place, function in self.functions()
        ]
        weights = self.weights or (1.0,) * len(self.rewards)
        total = [_sum(weights, row) for row in zip(*columns[: len(weights)], strict=True)]
        if self.correct:
            solved = [None if value is None else value >= 0.5 for value in columns[-1]]
        else:
            solved = [None if r is None else r >= self.threshold - _SLACK for r in total]
        return [self._score(*pair) for pair in zip(total, solved, strict=True)]

    def functions(self) -> list[tuple[str, Callable]]:
        """All functions with their names, imported.

        Raises:
            ValueError: one cannot be imported.
        """
        found = [(place, load(place, "reward")) for place in self.rewards]
        if self.correct:
            found.append((self.correct, load(self.correct, "correct")))
        for place, function in found:
            if not callable(function):
                raise ValueError(f"reward={place!r} is no function")
        return found

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files that the functions stand in, by their names."""
        return {f"reward {place}": _digest(function) for place, function in self.functions()}

    def probe(self, problem: Problem, where: str) -> None:
        """Call every function once, so that one that always fails is found before any rollout.

        Args:
            problem: one of the data.
            where: what it is called in messages.

        Raises:
            ValueError: a function fails, or returns what is no list of numbers.
        """
        answer = problem.answer["answer"]
        text = answer if isinstance(answer, str) else "" if answer is None else str(answer)
        for place, function in self.functions():
            try:
                values_of(place, function, [problem], [text])
            except Exception as error:  # a reward function is foreign code
                names = ", ".join(problem.answer["row"])
                raise ValueError(
                    f"reward={place!r} failed on {where} with the answer itself as the response "
                    f"({type(error).__name__}: {error}). It is called with prompts, completions "
                    f"and the columns {names}, a list each, and returns a list of numbers or None"
                ) from error

    def _score(self, reward: float | None, solved: bool | None) -> Score:
        if reward is None or solved is None:
            return Score(math.nan, False, "no verdict")  # is counted, and does not count
        return Score(reward, solved, "" if solved else f"reward {reward:g}")


def values_of(
    place: str, function: Callable, problems: Sequence[Problem], responses: Sequence[str]
) -> list[float | None]:
    """What a reward function says of responses.

    Args:
        place: its name.
        function: called with lists.
        problems: of :func:`dpsjax.tasks.data.columns.problems_of`.
        responses: one for each.

    Returns:
        a finite number for each, or None where it gave None or NaN.

    Raises:
        ValueError: it returned something else.
    """
    held = [problem.answer for problem in problems]
    prompts = [item["prompt"] for item in held]
    completions: list[Any] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, responses, strict=True)
    ]
    names = list(dict.fromkeys(name for item in held for name in item["row"]))
    columns = {name: [item["row"].get(name) for item in held] for name in names}
    if "answer" not in columns:
        columns["answer"] = [item["answer"] for item in held]
    for taken in ("prompt", "prompts", "completion", "completions", "completion_ids"):
        columns.pop(taken, None)
    columns = {"prompts": prompts, "completions": completions, **columns}
    parameters = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        wanted = {parameter.name for parameter in parameters}
        columns = {name: values for name, values in columns.items() if name in wanted}
    found = function(**columns)
    if inspect.iscoroutine(found):
        found.close()
        raise ValueError(f"reward={place!r} is asynchronous: give a plain function")
    try:
        values = list(found)
    except TypeError:
        raise ValueError(f"reward={place!r} returned {checks.shown(found)}, no list") from None
    if len(values) != len(responses):
        raise ValueError(
            f"reward={place!r} returned {len(values)} values for {len(responses)} completions"
        )
    return [_number(place, value) for value in values]


def _number(place: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"reward={place!r} returned {checks.shown(value)} where a number or None must be"
        ) from None
    if math.isinf(number):
        raise ValueError(f"reward={place!r} returned an infinite reward")
    return None if math.isnan(number) else number


def _sum(weights: Sequence[float | int], values: Sequence[float | None]) -> float | None:
    """The weighted sum of those that there are."""
    found = [w * v for w, v in zip(weights, values, strict=True) if v is not None]
    return math.fsum(found) if found else None


def _digest(function: Callable) -> str:
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        path = None
    if path is None or not Path(path).exists():
        return "unknown"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
