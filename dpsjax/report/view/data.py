"""What a page shows of a folder: numbers and texts, compact, as JSON can say them."""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpsjax.files import read_json
from dpsjax.loop.metrics import Record, partial_predictions
from dpsjax.report import plots
from dpsjax.report.pool_file import HELD_OUT, read_lines, read_pool
from dpsjax.report.response_file import read_responses

# Written by runs and evaluations; all may be absent but one of the two that hold numbers.
METRICS, RESPONSES, EVALUATION = "metrics.jsonl", "responses.jsonl", "evaluation.json"
# Numbers of a step that are drawn over the steps.
_SERIES = (
    *("step", "rollouts", "reward", "accuracy", "effective_ratio", "all_wrong", "all_right"),
    *("coverage", "brier", "log_loss", "entropy", "kl", "grad_norm", "loss", "truncated", "tokens"),
)
_DIGITS = 4
_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"}


class Limits(NamedTuple):
    """What keeps a page small enough to be opened.

    Attributes:
        responses: At most so many, the newest of them.
        characters: Of a prompt's text.
        image_bytes: Of all images together.
    """

    responses: int = 20_000
    characters: int = 4_000
    image_bytes: int = 2**25


def read_folder(folder: Path, limits: Limits) -> dict[str, Any]:
    """What is known of a run, finished or not, or of an evaluation.

    Args:
        folder: of ``dpsjax train`` or ``dpsjax eval``.
        limits: of the page.

    Returns:
        JSON-serialisable.

    Raises:
        OSError: it holds neither.
        ValueError: a file is damaged; it names the file and line.
    """
    metrics, evaluation = folder / METRICS, folder / EVALUATION
    if not metrics.exists() and not evaluation.exists():
        raise FileNotFoundError(
            f"{folder} holds neither {METRICS} nor {EVALUATION}: give the folder of a run of "
            "dpsjax train, or of dpsjax eval"
        )
    records = read_lines(metrics) if metrics.exists() else []
    pool, held, responses = read_pool(folder), read_pool(folder, HELD_OUT), _responses(folder)
    shown = responses[max(len(responses) - limits.responses, 0) :]
    settings = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    size = max([len(pool), *(1 + max(r["groups"]["prompt"], default=-1) for r in records)])
    return {
        "name": folder.absolute().name,
        "folder": str(folder),
        "settings": _settings(settings),
        "evaluation": read_json(evaluation) if evaluation.exists() else None,
        "evaluations": _evaluations(folder),
        "finished": (folder / "summary.json").exists(),
        "planned": settings.get("config", {}).get("steps"),
        "size": size,
        "series": {name: [_short(r.get(name)) for r in records] for name in _SERIES}
        | {"groups": [len(r["groups"]["prompt"]) for r in records]},
        "length": [_mean_length(r) for r in records],
        "seconds": [_short(r.get("seconds", {}).get("step")) for r in records],
        "held_out": _held_out(records),
        "occupancy": _occupancy(records, size) if records else None,
        "calibration": _calibration(records) if records else None,
        "visits": _visits(records),
        "belief": _belief(folder),
        "pool": _pool(pool, limits.characters),
        "held": _pool(held, limits.characters),
        "responses": [_without_question(row, pool, held) for row in shown],
        "left_out": len(responses) - len(shown),
        **_images(folder, {"": pool, "h": held}, shown, limits.image_bytes),
    }


def _responses(folder: Path) -> list[dict[str, Any]]:
    path = folder / RESPONSES
    return read_responses(path) if path.exists() else []


def _without_question(
    row: Mapping[str, Any], pool: Sequence[Any], held: Sequence[Any]
) -> Mapping[str, Any]:
    """A response without what the problems say already, and without what is not known of it."""
    known = row["prompt"] < len(pool if row.get("split") == "train" else held)
    return {k: v for k, v in row.items() if v is not None and not (known and k == "question")}


def _short(value: Any) -> Any:
    """A number with few digits; a page holds many."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was set, and what was typed."""
    if "config" not in record:
        return {}
    config = {k: v for k, v in record["config"].items() if v not in (None, "", [], {})}
    kept = ("policy_parameters", "versions", "devices", "git_commit")
    return {
        "command": record.get("command", ""),
        "config": config,
        **{name: record[name] for name in kept if name in record},
    }


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations that lie below a run's folder."""
    found = sorted((folder / "evaluations").glob(f"*/{EVALUATION}"))
    return [read_json(path) | {"name": path.parent.name} for path in found]


def _mean_length(record: Record) -> float | None:
    lengths, trials = record["groups"].get("length") or [], record["groups"]["trials"]
    total = sum(trials)
    if not lengths or not total:
        return None
    return _short(sum(n * t for n, t in zip(lengths, trials, strict=True)) / total)


def _held_out(records: Sequence[Record]) -> dict[str, Any] | None:
    """Accuracy at every evaluation, the first before any rollout."""
    if not records or "held_out_before_accuracy" not in records[0]:
        return None
    first, points = records[0], [r for r in records if "held_out_accuracy" in r]
    names = ("accuracy", "greedy")
    before = [first.get(f"held_out_before_{name}") for name in names]
    tried = first.get("held_out_before_by_temperature", {}).values()
    return {
        "step": [0, *(r["step"] for r in points)],
        "rollouts": [0, *(r["rollouts"] for r in points)],
        **{
            name: [_short(start), *(_short(r[f"held_out_{name}"]) for r in points)]
            for name, start in zip(names, before, strict=True)
        },
        "best_before": _short(max(v for v in (*before, *tried) if v is not None)),
        "before_by_source": first.get("held_out_before_by_source", {}),
        "after_by_source": points[-1].get("held_out_by_source", {}) if points else {},
    }


def _occupancy(records: Sequence[Record], size: int) -> dict[str, Any]:
    observed = plots.observed_occupancy(records, size)
    predicted = np.array([record["occupancy"] for record in records]).T
    return {"observed": _rounded(observed), "predicted": _rounded(predicted)}


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, np.float64), _DIGITS).tolist()


def _calibration(records: Sequence[Record]) -> dict[str, Any]:
    mean, rate, error, count = plots.calibration(*partial_predictions(records))
    named = {"mean": mean, "rate": rate, "low": rate - error[0], "high": rate + error[1]}
    return {name: _rounded(values) for name, values in named.items()} | {"count": count.tolist()}


def _visits(records: Sequence[Record]) -> dict[str, list]:
    """Every group in the order of the steps; chances in thousandths, which are short."""
    found: dict[str, list] = {name: [] for name in ("step", "prompt", "passes", "trials")}
    chances: list[np.ndarray] = []
    for record in records:
        groups = record["groups"]
        found["step"] += [record["step"]] * len(groups["prompt"])
        for name in ("prompt", "passes", "trials"):
            found[name] += groups[name]
        chances.append(np.asarray(groups["predicted"], np.float64))
    whole = np.concatenate(chances, axis=1) if chances else np.zeros((3, 0))
    return found | {"predicted": np.round(1000 * whole).astype(int).tolist()}


def _belief(folder: Path) -> list[list[int]] | None:
    """Of every prompt at the end, in thousandths, as the table of prompts has it."""
    rows = _belief_rows(folder)
    return None if rows is None else np.round(1000 * rows.T).astype(int).tolist()


def _belief_rows(folder: Path) -> np.ndarray | None:
    if (path := folder / "prompts.parquet").exists():
        try:
            import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
        except ImportError:  # the page does without
            return None
        return np.array(parquet.read_table(path, columns=["belief"])["belief"].to_pylist())
    if (path := folder / "prompts.csv").exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if name.startswith("belief_")] if rows else []
        return np.array([[float(row[name]) for name in names] for row in rows])
    return None


def _pool(pool: Sequence[Mapping[str, Any]], characters: int) -> dict[str, list]:
    def text(row: Mapping[str, Any]) -> str:
        whole = str(row.get("text", ""))
        more = len(whole) - characters
        return whole if more <= 0 else f"{whole[:characters]} [{more:,} characters left out]"

    return {
        "id": [str(row.get("id", "")) for row in pool],
        "source": [str(row.get("source", "")) for row in pool],
        "text": [text(row) for row in pool],
    }


def _images(
    folder: Path,
    pools: Mapping[str, Sequence[Mapping[str, Any]]],
    responses: Sequence[Mapping[str, Any]],
    most: int,
) -> dict[str, Any]:
    """Images as data URIs, each once, those of problems with responses first.

    Problems are named as on the page: ``"7"`` of the pool, ``"h7"`` held out.
    """
    answered = {f"{'' if r.get('split') == 'train' else 'h'}{r['prompt']}" for r in responses}
    places = {
        f"{mark}{number}": row["images"]
        for mark, pool in pools.items()
        for number, row in enumerate(pool)
        if row.get("images")
    }
    uris: dict[str, str | None] = {}
    room = most
    for key in sorted(places, key=lambda key: key not in answered):
        for place in places[key]:
            if place not in uris:
                uris[place] = _uri(folder, place, room)
                room -= len(uris[place] or "")
    return {"images": uris, "images_of": places}


def _uri(folder: Path, place: str, room: int) -> str | None:
    """An image file of a known kind as a data URI; None where it is missing or too large."""
    path = folder / place  # a whole path stays as it is
    kind = _TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file() or path.stat().st_size * 4 // 3 > room:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def to_json(values: Any) -> str:
    r"""JSON that may stand inside a script element: no ``<`` in it can end or begin a tag.

    >>> to_json("</script>")
    '"\\u003c/script>"'
    """
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
