"""Where a run stands, as its checkpoints say it; what they say is checked before it is used."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 4

_BLOCK = 1 << 20
_NOTHING = hashlib.sha256().hexdigest()


class Position(NamedTuple):
    """Where a run stands.

    Attributes:
        step: Steps done.
        metrics_bytes: Size of ``metrics.jsonl`` then; it has one line a step.
        metrics_sha256: Of those bytes.
        elapsed: Seconds of training so far.
    """

    step: int = 0
    metrics_bytes: int = 0
    metrics_sha256: str = _NOTHING
    elapsed: float = 0.0


def hash_of(path: Path, size: int | None = None) -> tuple[Any, int]:
    """SHA-256 of a file, in a form that can go on with what is appended to it.

    Args:
        path: the file; one that is not there counts as empty.
        size: bytes from its beginning; all by default.

    Returns:
        ``(hashlib object, number of newlines)``.
    """
    total, lines = hashlib.sha256(), 0
    if not path.exists():
        return total, lines
    left = path.stat().st_size if size is None else min(size, path.stat().st_size)
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            total.update(block)
            lines += block.count(b"\n")
            left -= len(block)
    return total, lines


def check_lines(metrics: Path, position: Position) -> None:
    """Make sure that the lines before ``position`` are all there, as they were written.

    Args:
        metrics: ``metrics.jsonl``.
        position: of a checkpoint.

    Raises:
        ValueError: they are not.
    """
    total, lines = hash_of(metrics, position.metrics_bytes)
    size = metrics.stat().st_size if metrics.exists() else 0
    if size < position.metrics_bytes or lines != position.step:
        what = f"does not hold the {position.step} lines, {position.metrics_bytes} bytes,"
    elif total.hexdigest() != position.metrics_sha256:
        what = f"was changed: it no longer holds the {position.step} lines"
    else:
        return
    raise ValueError(
        f"{metrics} {what} that its checkpoint has seen: put the file back, choose another "
        "--out, or begin anew with --restart"
    )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "step": (_count, "a count"),
    "metrics_bytes": (_count, "a count"),
    "metrics_sha256": (lambda v: isinstance(v, str) and len(v) == 64, "64 hexadecimal digits"),
    "elapsed": (
        lambda v: isinstance(v, int | float) and math.isfinite(v) and v >= 0,
        "seconds",
    ),
    "prompts": (lambda v: _count(v) and v > 0, "a count above 0"),
    "pool_rows": (lambda v: _count(v) and v < 2**31, "a count"),
    "identity": (lambda v: isinstance(v, dict), "an object"),
}


def wrong_with(meta: Any, step: int) -> str | None:
    """What is wrong with what a checkpoint says of itself.

    Args:
        meta: what :func:`dpsjax.run.checkpoint.read_meta` returned.
        step: that the checkpoint's folder is named after.

    Returns:
        None if it can be used, else a sentence without a full stop.

    >>> wrong_with({"format": 1}, 4)
    'its format is 1, and this version reads 4'
    """
    if not isinstance(meta, dict):
        return "its meta item is no JSON object"
    if meta.get("format") != FORMAT:
        return f"its format is {meta.get('format')!r}, and this version reads {FORMAT}"
    for name, (holds, kind) in _KINDS.items():
        if not holds(meta.get(name)):
            return f"its {name} is {str(meta.get(name))[:80]!r}, not {kind}"
    if meta["step"] != step:
        return f"it was made after step {meta['step']}, not {step}"
    if not meta["prompts"] <= meta["pool_rows"]:
        return f"its pool_rows is {meta['pool_rows']}, fewer than its {meta['prompts']} prompts"
    return None


def position_of(meta: Mapping[str, Any]) -> Position:
    """The position in a checkpoint that :func:`wrong_with` found nothing wrong with."""
    return Position(
        meta["step"], meta["metrics_bytes"], meta["metrics_sha256"], float(meta["elapsed"])
    )
