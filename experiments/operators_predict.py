"""How well a prompt's text can tell whether its group will be mixed, on a real policy: a bound.

    python experiments/operators_predict.py             # about 3 minutes

For policies at several stages of a run with shuffled epochs, whose pass rates are known exactly: a
logistic model of the prompts' features is fitted to the true pass rates of one half of the pool and
predicts the other, and the other way round. A draw by its predictions then finds so many mixed
groups; a real selector, which sees a few rollouts of a policy that has since moved on, finds fewer.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from operators_runs import after, write_record
from rich.console import Console
from scipy.special import betaln, expit

from dpsjax.belief.filter import group_outcome
from dpsjax.lab.policies import exact_rates, policy_student
from dpsjax.tasks.operators import base_path, operator_chains

GROUP = 8
STRENGTHS = (
    0.5,
    1,
    2,
    4,
    8,
    32,
)  # pseudo-counts that the model may be worth; the best one is taken


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: Path = Path("experiments/results/operators_predict.json")
    """Where the figures go."""
    stages: tuple[int, ...] = (0, 20, 60, 120, 200)
    """Steps of shuffled epochs."""
    power: float = 4.0
    """Of the chance in the draw."""
    smoke: bool = False
    """The base alone, to see that it works."""


def fitted(features: np.ndarray, rate: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Weights of the logistic model, by Newton's method; a prompt counts as a group of rollouts."""
    weights = np.zeros(features.shape[1])
    for _ in range(30):
        mean = expit(features @ weights)
        slope = features.T @ (GROUP * (mean - rate)) + ridge * weights
        curve = (features * (GROUP * mean * (1 - mean) + 1e-3)[:, None]).T @ features
        weights = weights - np.linalg.solve(curve + ridge * np.eye(weights.size), slope)
    return weights


def share_mixed(score: np.ndarray, truth: np.ndarray, power: float) -> float:
    """Of groups drawn in proportion to a power of the score, with replacement."""
    return float((score**power * truth).sum() / (score**power).sum())


def bound(features: np.ndarray, rate: np.ndarray, truth: np.ndarray, power: float) -> float:
    """Share of mixed groups that a draw by the model finds."""
    model = np.column_stack([features, np.ones(rate.size)])
    half, mean = np.arange(rate.size) % 2 == 0, np.zeros(rate.size)
    for part in (half, ~half):
        mean[~part] = expit(model[~part] @ fitted(model[part], rate[part]))
    found = []
    for strength in STRENGTHS:
        a, b = strength * mean + 0.02, strength * (1 - mean) + 0.02
        every, none = betaln(a + GROUP, b) - betaln(a, b), betaln(a, b + GROUP) - betaln(a, b)
        found.append(share_mixed(1 - np.exp(every) - np.exp(none), truth, power))
    return max(found)


def main(config: Config) -> None:
    """Measure, print, write."""
    console, rows = Console(width=120), []
    student = policy_student(operator_chains(2000, 1000), base_path())
    features = np.asarray(student.features, np.float64)
    for stage in (0,) if config.smoke else config.stages:
        params = after(student, stage)
        rate = exact_rates(student, params, student.pool)
        truth = np.asarray(group_outcome(rate, GROUP)[1], np.float64)
        row = {
            "stage": stage,
            "pool": float(truth.mean()),
            "by_text": bound(features, np.asarray(rate, np.float64), truth, config.power),
            "oracle": share_mixed(truth, truth, config.power),
        }
        rows.append(row)
        console.print(
            f"after {stage} steps: mixed {row['pool']:.2f} of the pool, {row['by_text']:.2f} of a "
            f"draw by the prompts' texts, {row['oracle']:.2f} by the truth",
            highlight=False,
        )
    write_record(config.out, dataclasses.asdict(config), rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
