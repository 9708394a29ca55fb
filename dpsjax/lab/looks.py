"""What is seen of a run of a real policy: curves of its steps, exact measures of the policy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import selectors
from dpsjax.belief.filter import group_outcome
from dpsjax.lab import measures
from dpsjax.lab.measures import Calibration, Run, calibrate, no_calibration
from dpsjax.lab.policies import PolicyStudent, exact_rates, greedy_accuracy
from dpsjax.loop.collect import RoundReport
from dpsjax.selectors import Selector
from dpsjax.types import Array, Float, Int, PyTree

RECENT = 10  # steps; a prompt drawn again within them is a repeat


class Steps(NamedTuple):
    """Curves of a run: one value a step."""

    rollouts: Int[Array, "S"]  # made in the step
    groups: Int[Array, "S"]
    effective: Int[Array, "S"]  # of them, with both passes and failures
    trained: Int[Array, "S"]  # groups in the loss
    repeats: Int[Array, "S"]  # groups of prompts rolled out in the RECENT steps before
    covered: Int[Array, "S"]  # prompts of the pool that were rolled out so far


class Looks(NamedTuple):
    """What is measured before the first step and every few steps: exact, nothing is sampled."""

    held_out: Float[Array, "E"]  # mean pass rate
    greedy: Float[Array, "E"]  # share of held-out problems solved by the most likely tokens
    pool: Float[Array, "E"]  # mean pass rate of the training pool
    mixed: Float[Array, "E"]  # mean chance over the pool that a group would be mixed
    calibration: Calibration  # of the believed chance, over the pool; leaves [E, ...]


class PolicyRun(NamedTuple):
    """What one run left."""

    steps: Steps
    looks: Looks
    visits: Int[Array, "N"]  # times each prompt was rolled out
    first: Int[Array, "S B"]  # prompts of each step's last round, -1 for none
    params: PyTree


def nothing() -> Steps:
    """The curves of no round."""
    return Steps(*[jnp.zeros((), jnp.int32)] * len(Steps._fields))


def round_line(report: RoundReport, last: Array, step: Array) -> tuple[Steps, Array]:
    """A round's share of the curves, and when each prompt was last rolled out.

    Args:
        report: of the round.
        last: when they were before. int32[N].
        step: steps so far.
    """
    asked = report.asked > 0
    rows = jnp.where(asked, report.index, last.shape[0])
    before = last.at[rows].get(mode="fill", fill_value=-RECENT - 1)
    mixed = (report.passes > 0) & (report.passes < report.trials)
    count = lambda flags: (flags & asked).sum(dtype=jnp.int32)  # noqa: E731
    line = Steps(
        rollouts=report.asked.sum(dtype=jnp.int32),
        groups=count(asked),
        effective=count(mixed),
        trained=jnp.zeros((), jnp.int32),
        repeats=count(step - before <= RECENT),
        covered=jnp.zeros((), jnp.int32),
    )
    return line, last.at[rows].set(step, mode="drop")


def measure(
    student: PolicyStudent, params: PyTree, group: int
) -> tuple[Looks, Float[Array, "3 N"]]:
    """Measure a policy: the looks without a calibration, and the chances of the pool's groups.

    Args:
        student: what is asked.
        params: of the policy.
        group: G.
    """
    rate = exact_rates(student, params, student.pool)
    truth = group_outcome(rate, group)
    looks = Looks(
        held_out=exact_rates(student, params, student.held_out).mean(),
        greedy=greedy_accuracy(student, params, student.held_out),
        pool=rate.mean(),
        mixed=truth[1].mean(),
        calibration=no_calibration(),
    )
    return looks, truth


def judge(
    selector: Selector, belief: PyTree, truth: Float[Array, "3 N"], group: int
) -> Calibration:
    """What the selector believes of the pool, against the truth.

    Args:
        selector: who believes.
        belief: its state.
        truth: of :func:`measure`.
        group: G.
    """
    if not selectors.has_belief(selector, belief):
        return no_calibration()
    outcome = selectors.inspect(selector, belief, group).outcome
    return calibrate(outcome.astype(jnp.float32), truth)


def as_run(runs: Sequence[PolicyRun], every: int) -> Run:
    """What the laboratory's comparisons take: measures between two looks lie on a line.

    Args:
        runs: one a seed, NumPy arrays.
        every: steps between looks.

    Returns:
        a run whose arrays have a leading seed axis; its calibration is that of the looks.
    """
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[run[:4] for run in runs])
    steps, looks, visits, _ = stacked
    count = steps.rollouts.shape[1]
    at, between = np.arange(looks.held_out.shape[1]) * every, np.arange(1, count + 1)

    def curve(values: np.ndarray) -> Any:
        return np.stack([np.interp(between, at, row) for row in values])

    sums = looks.calibration
    with np.errstate(invalid="ignore"):
        brier = sums.brier / np.where(sums.prompts > 0, sums.prompts, np.nan)
    return Run(
        steps=measures.Steps(
            rollouts=steps.rollouts,
            groups=steps.groups,
            effective=steps.effective,
            updated=steps.trained > 0,
            coverage=steps.covered / visits.shape[1],
            ability_pool=curve(looks.pool),
            ability_held_out=curve(looks.held_out),
            brier=curve(brier),
        ),
        visits=visits,
        calibration=jax.tree.map(lambda x: x.sum(axis=1), sums),
        groups=None,
    )
