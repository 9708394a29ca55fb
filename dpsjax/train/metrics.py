"""What is recorded of each step: one JSON object a line."""

import json
import math
from collections.abc import Sequence
from io import TextIOBase
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpsjax.selectors import partial_states
from dpsjax.train.evaluate import Accuracy
from dpsjax.train.stages import StepReport

Record = dict[str, Any]


def step_record(step: int, rollouts: int, report: StepReport, seconds: dict[str, float]) -> Record:
    """One step, as it goes into ``metrics.jsonl``.

    Everything that depends on the clock is under ``seconds``; the rest is a function of the
    settings and the seed.

    Args:
        step: number of the step, from 1.
        rollouts: responses generated since the start of the run, this step included.
        report: what the step did.
        seconds: by phase.

    Returns:
        a JSON-serialisable record. Rates are over prompts with at least one valid rollout:
        ``effective_ratio`` is the share that is neither all wrong nor all right.
    """
    host: Any = jax.tree.map(np.asarray, report)
    rows = host.index >= 0
    passes, trials = host.passes[rows], host.trials[rows]
    seen = trials > 0
    mixed = seen & (passes > 0) & (passes < trials)
    policy, update = host.update.policy, host.update
    return {
        "step": step,
        "rollouts": rollouts,
        "reward": float(host.reward),
        "accuracy": float(passes.sum() / max(trials.sum(), 1)),
        "effective_ratio": float(mixed.sum() / max(seen.sum(), 1)),
        "all_wrong": int((seen & (passes == 0)).sum()),
        "all_right": int((seen & (passes == trials)).sum()),
        "groups_in_loss": int(update.groups),
        "coverage": int(host.covered),
        "occupancy": _rounded(host.occupancy),
        "loss": float(update.loss),
        "grad_norm": float(update.grad_norm),
        "entropy": float(policy.entropy),
        "kl": float(policy.kl),
        "mismatch": float(policy.mismatch),
        "mismatch_max": float(policy.mismatch_max),
        "clipped": float((policy.clipped_low + policy.clipped_high) / max(policy.tokens, 1)),
        "tokens": int(host.tokens),
        "skipped_nonfinite": int(update.skipped_nonfinite),
        "skipped_empty": int(update.skipped_empty),
        "groups": {
            "prompt": host.index[rows].tolist(),
            "passes": passes.tolist(),
            "trials": trials.tolist(),
            "state": host.observed[rows].tolist(),
            "predicted": _rounded(host.predicted[:, rows]),
        },
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }


def add_held_out(record: Record, accuracy: Accuracy, name: str = "held_out") -> None:
    """Write held-out accuracy into a record.

    Args:
        record: changed in place.
        accuracy: over the held-out slice.
        name: ``"held_out"`` (after the step) or ``"held_out_before"`` (before the first).
    """
    record[f"{name}_accuracy"] = accuracy.mean
    record[f"{name}_by_source"] = accuracy.by_source


def add_faults(record: Record, group: int, batch_size: int, errors: Sequence[str]) -> None:
    """Count what went wrong in a step; all 0 when all is well.

    Args:
        record: of :func:`step_record`, changed in place: ``invalid_rollouts`` had no finite
            reward, ``reward_errors`` is how often the verifier failed, ``short_batch`` how many
            prompts the selector could not give.
        group: G.
        batch_size: B.
        errors: of the scoring.
    """
    groups = record["groups"]
    record["invalid_rollouts"] = len(groups["prompt"]) * group - sum(groups["trials"])
    record["reward_errors"] = len(errors)
    record["short_batch"] = batch_size - len(groups["prompt"])


def write_record(stream: TextIOBase, record: Record) -> None:
    """Append one line and hand it to the operating system at once.

    Args:
        stream: open for text.
        record: of :func:`step_record`. Numbers that are not finite become null: JSON has none.
    """
    stream.write(json.dumps(_finite(record), allow_nan=False) + "\n")
    stream.flush()


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
    for number, line in enumerate(path.read_text().splitlines(), 1):
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
        weights = np.asarray(partial_states(predicted.shape[0]))
        probabilities.append((weights @ predicted)[state >= 0])
        partial.append(weights[state[state >= 0]] > 0)
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
