"""Counts of what was told: of every prompt, of the last step and of all steps."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Groups = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # prompt, passes, verdicts, told

_COUNTS = ("groups", "mixed", "wrong", "right", "told", "verdicts", "passes")


@dataclasses.dataclass
class Statistics:
    """What was told so far.

    Attributes:
        prompts: int64[N] by name: times ``asked``, ``groups`` told with a verdict, ``rollouts``
            with one, of them ``passes``, and ``last_step`` of a group, -1: never.
        total: counts of all steps, by name.
        last: of the last step in which anything was learned.
        of_step: that step.
        dropped: rollouts told of batches that had been given up.
    """

    prompts: dict[str, np.ndarray]
    total: dict[str, int]
    last: dict[str, int]
    of_step: int = -1
    dropped: int = 0

    @classmethod
    def of(cls, num_prompts: int) -> "Statistics":
        """Of nothing."""
        names = ("asked", "groups", "rollouts", "passes")
        nothing: dict[str, int] = dict.fromkeys(_COUNTS, 0)
        prompts = {name: np.zeros(num_prompts, np.int64) for name in names}
        prompts["last_step"] = np.full(num_prompts, -1, np.int64)
        return cls(prompts, nothing, nothing)

    def rest(self) -> dict[str, Any]:
        """All but the arrays, as JSON takes it."""
        rest = {"total": self.total, "last": self.last, "of_step": self.of_step}
        return {**rest, "dropped": self.dropped}

    def hand_out(self, index: np.ndarray) -> None:
        """Count a batch of distinct prompts."""
        self.prompts["asked"][index] += 1

    def take_in(self, groups: Groups, step: int) -> None:
        """Count groups of distinct prompts, learned in a step."""
        index, passes, verdicts, told = groups
        self.prompts["groups"][index] += verdicts > 0
        self.prompts["rollouts"][index] += verdicts
        self.prompts["passes"][index] += passes
        self.prompts["last_step"][index] = step
        found = _found(passes, verdicts, told)
        before = self.last if step == self.of_step else dict.fromkeys(found, 0)
        self.last, self.of_step = {n: before[n] + v for n, v in found.items()}, step
        self.total = {n: self.total[n] + v for n, v in found.items()}

    def after(self, step: int, groups: Iterable[Groups]) -> "Statistics":
        """A copy that has taken in some more."""
        prompts = {name: values.copy() for name, values in self.prompts.items()}
        copy = dataclasses.replace(self, prompts=prompts)
        for counts in groups:
            copy.take_in(counts, step)
        return copy

    def metrics(self, step: int) -> dict[str, float]:
        """Plain numbers; shares of nothing are NaN."""
        last, total = self.last, self.total
        return {
            "step": float(step),
            "pass_rate": _share(last["passes"], last["verdicts"]),
            "effective_ratio": _share(last["mixed"], last["groups"]),
            "all_wrong": _share(last["wrong"], last["groups"]),
            "all_right": _share(last["right"], last["groups"]),
            "no_verdict": _share(last["told"] - last["verdicts"], last["told"]),
            "total_rollouts": float(total["told"]),
            "total_groups": float(total["groups"]),
            "total_effective_ratio": _share(total["mixed"], total["groups"]),
            "coverage": float(np.mean(self.prompts["groups"] > 0)),
            "dropped_rollouts": float(self.dropped),
        }


def restored(arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> Statistics:
    """Of a saved file."""
    return Statistics({name: values.copy() for name, values in arrays.items()}, **rest)


def _found(passes: np.ndarray, verdicts: np.ndarray, told: np.ndarray) -> dict[str, int]:
    seen = verdicts > 0
    counts = {
        "groups": seen.sum(),
        "mixed": ((passes > 0) & (passes < verdicts)).sum(),
        "wrong": (seen & (passes == 0)).sum(),
        "right": (seen & (passes == verdicts)).sum(),
        "told": told.sum(),
        "verdicts": verdicts.sum(),
        "passes": passes.sum(),
    }
    return {name: int(value) for name, value in counts.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
