"""What a run is judged by: yield, coverage, ability, and calibration over the whole pool."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.lab import statistics
from dpsjax.lab.waiting import Groups
from dpsjax.types import Array, Bool, Float, Int

BINS = 10  # of the reliability diagram, equally wide
SMALLEST = 1e-6  # probabilities of what happened are not below this in the log loss


class Calibration(NamedTuple):
    """Sums over prompts; divide by ``prompts`` for means."""

    prompts: Float[Array, ""]  # judged; 0 if the selector publishes no belief
    brier: Float[Array, ""]
    log_loss: Float[Array, ""]
    confusion: Float[Array, "3 3"]  # [predicted, true]: none, some, all
    bins: Float[Array, "3 bins"]  # count, sum of predictions, sum of true probabilities


class Steps(NamedTuple):
    """Curves: one value a step."""

    rollouts: Int[Array, "S"]  # spent in the step
    groups: Int[Array, "S"]  # rolled out in the step
    effective: Int[Array, "S"]  # of them, with both passes and failures
    updated: Bool[Array, "S"]  # whether the student was trained
    coverage: Float[Array, "S"]  # share of the pool rolled out so far
    ability_pool: Float[Array, "S"]  # mean true solve probability after the step
    ability_held_out: Float[Array, "S"]
    brier: Float[Array, "S"]  # of P(partial) before the step, over the whole pool; NaN: no belief


class Run(NamedTuple):
    """What one run left, of a student or of a policy."""

    steps: Steps
    visits: Int[Array, "N"]  # times each prompt was rolled out
    calibration: Calibration  # summed over prompts and steps
    groups: Groups | None  # [S, B], if recorded


def calibrate(predicted: Float[Array, "3 N"], truth: Float[Array, "3 N"]) -> Calibration:
    """Judge predicted outcomes by the true probabilities, in expectation over the outcome.

    The expected Brier score of prediction q for an event of probability v is
    ``v (1 - v) + (q - v)^2``; nothing is drawn, so this adds no noise. Ties of the most likely
    state are shared among the tied ones.

    Args:
        predicted: columns sum to 1.
        truth: columns sum to 1.

    Returns:
        sums over the N prompts.

    Raises:
        TypeError: an argument is no array of floats.
        ValueError: shapes do not fit, or there is NaN or infinity.
    """
    checks.require_arrays(predicted=(predicted, "float S N"), truth=(truth, "float S N"))
    checks.require_setting(predicted.shape[0] == 3, "predicted", predicted.shape, "[3, N]")
    checks.require_range(-jnp.inf, jnp.inf, predicted=predicted, truth=truth)
    q, v = predicted[1], truth[1]
    log_loss = -(
        v * jnp.log(jnp.clip(q, SMALLEST, 1)) + (1 - v) * jnp.log(jnp.clip(1 - q, SMALLEST, 1))
    )
    likely = (predicted >= predicted.max(axis=0, keepdims=True) - 1e-6).astype(jnp.float32)
    likely = likely / likely.sum(axis=0, keepdims=True)
    place = jnp.clip(jnp.floor(q * BINS), 0, BINS - 1).astype(jnp.int32)
    member = (place[None, :] == jnp.arange(BINS, dtype=jnp.int32)[:, None]).astype(jnp.float32)
    return Calibration(
        prompts=jnp.float32(q.shape[0]),
        brier=(v * (1 - v) + (q - v) ** 2).sum(),
        log_loss=log_loss.sum(),
        confusion=likely @ truth.T,
        bins=jnp.stack([jnp.ones_like(q), q, v]) @ member.T,
    )


def no_calibration() -> Calibration:
    """The sums of no prompt at all."""
    zero = jnp.zeros((), jnp.float32)
    return Calibration(
        zero, zero, zero, jnp.zeros((3, 3), jnp.float32), jnp.zeros((3, BINS), jnp.float32)
    )


# Measures of `summarize`: name -> (heading, whether more is better; None: neither)
MEASURES: dict[str, tuple[str, bool | None]] = {
    "effective_ratio": ("effective ratio", True),
    "effective_ratio_late": ("effective ratio, 2nd half", True),
    "rollouts_per_effective_group": ("rollouts per effective group", False),
    "coverage": ("coverage", None),
    "largest_visits": ("most visits of a prompt", None),
    "updates": ("updates", None),
    "ability_pool": ("final ability, pool", True),
    "ability_held_out": ("final ability, held-out", True),
    "brier": ("Brier score of P(partial)", False),
    "log_loss": ("log loss of P(partial)", False),
    "accuracy": ("accuracy of the predicted state", True),
}


def summarize(run: Run) -> dict[str, np.ndarray]:
    """Reduce runs to one number each.

    Args:
        run: with any leading axes, such as seeds.

    Returns:
        the :data:`MEASURES`, float64 of the leading axes; NaN where there is nothing to judge.
        ``effective_ratio`` is effective groups over rolled out groups, at the rollouts' time.
        ``brier``, ``log_loss`` and ``accuracy`` are over all prompts of the pool and all steps,
        selected or not.

    Raises:
        TypeError: ``run`` is something else.
    """
    checks.require_type(Run, "of simulate", run=run)
    steps = {name: np.asarray(value, np.float64) for name, value in run.steps._asdict().items()}
    effective, groups = steps["effective"], steps["groups"]
    half = effective.shape[-1] // 2
    sums = {
        name: np.asarray(value, np.float64) for name, value in run.calibration._asdict().items()
    }
    visits = np.asarray(run.visits)
    right = np.trace(sums["confusion"], axis1=-2, axis2=-1)
    return {
        "effective_ratio": _ratio(effective.sum(-1), groups.sum(-1)),
        "effective_ratio_late": _ratio(effective[..., half:].sum(-1), groups[..., half:].sum(-1)),
        "rollouts_per_effective_group": _ratio(steps["rollouts"].sum(-1), effective.sum(-1)),
        "coverage": (visits > 0).mean(-1),
        "largest_visits": visits.max(-1).astype(np.float64),
        "updates": steps["updated"].sum(-1),
        "ability_pool": steps["ability_pool"][..., -1],
        "ability_held_out": steps["ability_held_out"][..., -1],
        "brier": _ratio(sums["brier"], sums["prompts"]),
        "log_loss": _ratio(sums["log_loss"], sums["prompts"]),
        "accuracy": _ratio(right, sums["prompts"]),
    }


def gap_closed(value, uniform, oracle) -> np.ndarray:
    """Share of the gap between uniform and the oracle that is closed.

    Args:
        value: of a selector.
        uniform: of uniform selection.
        oracle: of the B prompts most likely to be partly solved, by the true probabilities.

    Returns:
        0 for uniform's value, 1 for the oracle's; NaN if they are equal.

    >>> float(gap_closed(0.7, 0.5, 0.9))
    0.5
    """
    value, uniform, oracle = (
        statistics.as_floats(name, given)
        for name, given in (("value", value), ("uniform", uniform), ("oracle", oracle))
    )
    gap = np.asarray(oracle, np.float64) - uniform
    return np.asarray(np.round(_ratio(np.asarray(value, np.float64) - uniform, gap), 12))


def _ratio(above, below):
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
