"""What is recorded of each step: one JSON object a line."""

import json
import math
from collections.abc import Sequence
from io import TextIOBase
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpsjax.grpo.update import UpdateMetrics
from dpsjax.loop.collect import RoundReport
from dpsjax.loop.evaluate import Accuracy

Record = dict[str, Any]


def step_record(
    step: int,
    rollouts: int,
    rounds: Sequence[RoundReport],
    update: UpdateMetrics,
    seconds: dict[str, float],
) -> Record:
    """One step, as it goes into ``metrics.jsonl``.

    Everything that depends on the clock is under ``seconds``; the rest is a function of the
    settings and the seed.

    Args:
        step: number of the step, from 1.
        rollouts: responses generated since the start of the run, this step included.
        rounds: what its rollouts showed.
        update: what the policy update did.
        seconds: by phase.

    Returns:
        a JSON-serialisable record. Rates are over prompts with at least one valid rollout that the
        belief learned from, of all rounds: ``effective_ratio`` is the share that is neither all
        wrong nor all right, ``rejected`` counts those of them that the selector kept out of the
        loss. ``truncated`` counts responses that have no end within their limit.
        ``rollouts_per_effective_group`` counts all rollouts of the step. ``brier`` and
        ``log_loss`` judge the predicted probability of "partially solved", on the rolled-out
        prompts. What is not defined in a step without any such prompt is None.
    """
    shown: list[RoundReport] = [jax.tree.map(np.asarray, report) for report in rounds]
    done: Any = jax.tree.map(np.asarray, update)
    rows = np.concatenate([report.asked for report in shown]) > 0
    made = sum(int(report.asked.sum()) for report in shown)

    def joined(name: str) -> Any:
        return np.concatenate([report._asdict()[name] for report in shown], axis=-1)[..., rows]

    passes, trials, state = joined("passes"), joined("trials"), joined("observed")
    predicted = joined("predicted")
    seen = state >= 0
    mixed = seen & (passes > 0) & (passes < trials)
    effective, policy = int(mixed.sum()), done.policy
    valid = [max(int(report.trials.sum()), 1) for report in shown]
    return {
        "step": step,
        "rollouts": rollouts,
        "rounds": len(shown),
        "reward": float(np.average([float(report.reward) for report in shown], weights=valid)),
        "accuracy": float(passes.sum() / max(trials.sum(), 1)),
        "effective_ratio": float(effective / max(seen.sum(), 1)),
        "all_wrong": int((seen & (passes == 0)).sum()),
        "all_right": int((seen & (passes == trials)).sum()),
        "rejected": int((mixed & ~joined("accept")).sum()),
        "groups_in_loss": int(done.groups),
        "rollouts_per_effective_group": made / effective if effective else None,
        **_surprise(predicted, state),
        "coverage": int(shown[-1].covered),
        "occupancy": _rounded(np.asarray(shown[0].occupancy)),
        "loss": float(done.loss),
        "grad_norm": float(done.grad_norm),
        "entropy": float(policy.entropy),
        "kl": float(policy.kl),
        "mismatch": float(policy.mismatch),
        "mismatch_max": float(policy.mismatch_max),
        "clipped": float((policy.clipped_low + policy.clipped_high) / max(policy.tokens, 1)),
        "invalid_rollouts": made - int(trials.sum()),
        "truncated": sum(int(report.truncated) for report in shown),
        "tokens": int(sum(int(report.tokens) for report in shown)),
        "skipped_nonfinite": int(done.skipped_nonfinite),
        "skipped_empty": int(done.skipped_empty),
        "groups": {
            "prompt": joined("index").tolist(),
            "passes": passes.tolist(),
            "trials": trials.tolist(),
            "length": np.round(joined("length").astype(np.float64), 3).tolist(),
            "state": state.tolist(),
            "predicted": _rounded(predicted),
        },
        "seconds": {
            **{name: round(value, 4) for name, value in seconds.items()},
            "per_effective_group": round(seconds["step"] / effective, 4) if effective else None,
        },
    }


def _surprise(predicted: np.ndarray, state: np.ndarray) -> dict[str, float | None]:
    """Brier score and log loss (nats) of P(partially solved), over the prompts that were seen."""
    probability = predicted[1, state >= 0].astype(np.float64)
    partial = state[state >= 0] == 1
    if not partial.size:
        return {"brier": None, "log_loss": None}
    likelihood = np.clip(np.where(partial, probability, 1 - probability), 1e-6, 1.0)
    return {
        "brier": round(float(np.mean((probability - partial) ** 2)), 6),
        "log_loss": round(float(-np.log(likelihood).mean()), 6),
    }


def add_held_out(record: Record, accuracy: Accuracy, name: str = "held_out") -> None:
    """Write held-out accuracy into a record.

    Args:
        record: changed in place.
        accuracy: over the held-out slice; responses without a verdict count as wrong, and are
            counted.
        name: ``"held_out"`` (after the step) or ``"held_out_before"`` (before the first).
    """
    record[f"{name}_accuracy"] = accuracy.mean
    record[f"{name}_greedy"] = accuracy.greedy
    record[f"{name}_by_source"] = accuracy.by_source
    record[f"{name}_unscored"] = accuracy.unscored
    record[f"{name}_truncated"] = accuracy.truncated


def add_before(record: Record, accuracy: Accuracy, by_temperature: dict[float, float]) -> None:
    """Write into the first record what the policy could before it learned.

    Args:
        record: changed in place.
        accuracy: as for :func:`add_held_out`.
        by_temperature: accuracy at other temperatures.
    """
    add_held_out(record, accuracy, "held_out_before")
    tried = {f"{value:g}": found for value, found in by_temperature.items()}
    record["held_out_before_by_temperature"] = tried


def add_faults(
    record: Record, rounds: Sequence[RoundReport], wanted: int, errors: Sequence[str]
) -> None:
    """Count what went wrong in a step; all 0 when all is well.

    Args:
        record: of :func:`step_record`, changed in place: ``invalid_rollouts`` had no finite
            reward, ``reward_errors`` is how often the verifier failed, ``short_batch`` how many
            prompts the selector could not give.
        rounds: in which the selector was asked.
        wanted: prompts that it was asked for in all of them.
        errors: of the scoring.
    """
    given = sum(int((np.asarray(report.index) >= 0).sum()) for report in rounds)
    record["reward_errors"] = len(errors)
    record["short_batch"] = wanted - given


def write_record(stream: TextIOBase, record: Record) -> bytes:
    """Append one line and hand it to the operating system at once.

    Args:
        stream: open for text.
        record: of :func:`step_record`. Numbers that are not finite become null: JSON has none.

    Returns:
        the line.
    """
    line = json.dumps(_finite(record), allow_nan=False) + "\n"
    stream.write(line)
    stream.flush()
    return line.encode()


def read_records(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``.

    Args:
        path: the file.

    Returns:
        one record a line.

    Raises:
        ValueError: a line is not a JSON object; it names the line.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not a JSON object: {line[:80]!r}") from error
    return records


def partial_predictions(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted probability of "partially solved", and whether it was, over all groups.

    Args:
        records: of a run.

    Returns:
        ``(probability float[M], partial bool[M])``, groups without a valid rollout left out.
    """
    probabilities, partial = [], []
    for record in records:
        groups = record["groups"]
        predicted, state = np.asarray(groups["predicted"]), np.asarray(groups["state"])
        probabilities.append(predicted[1, state >= 0])
        partial.append(state[state >= 0] == 1)
    return np.concatenate(probabilities), np.concatenate(partial)


def _rounded(values: np.ndarray) -> list:
    """Probabilities with six decimals: short lines, and as exact as float32 is."""
    return np.round(values.astype(np.float64), 6).tolist()


def _finite(value: Any) -> Any:
    """The same JSON value with null for every number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
