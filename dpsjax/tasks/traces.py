"""Recorded rollouts: a file format, which `dpsjax train` writes and the laboratory replays.

A trace is a JSONL file. The first line describes it::

    {"format": "dpsjax-trace", "version": 1, "num_prompts": 2000}

and every other line is one group of rollouts of one prompt::

    {"step": 0, "prompt": 17, "passes": 3, "trials": 8, "length": 212.5, "policy": 0}

``step`` counts training steps from 0; ``prompt`` lies in [0, num_prompts); ``passes`` of ``trials``
rollouts passed the verifier; ``length`` is their mean response length in tokens (null if not
known); ``policy`` is the step of the policy that made the rollouts, smaller than ``step`` if they
arrived late. Lines may come in any order; a prompt has at most one group a step. A *full-pool*
trace holds a group of every prompt at every step, so a replay can ask for any of them.

The same table may be kept as Parquet (columns of the same names, ``num_prompts`` in the schema's
metadata); that needs the extra ``parquet``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpsjax import checks

FORMAT, VERSION = "dpsjax-trace", 1
COLUMNS = ("step", "prompt", "passes", "trials", "length", "policy")


class Trace(NamedTuple):
    """Columns of M groups, and the size of the pool."""

    num_prompts: int
    step: np.ndarray  # int32[M]
    prompt: np.ndarray  # int32[M]
    passes: np.ndarray  # int32[M]
    trials: np.ndarray  # int32[M]
    length: np.ndarray  # float32[M], NaN if not known
    policy: np.ndarray  # int32[M]


def make_trace(num_prompts: int, rows: Iterable[dict]) -> Trace:
    """A trace from rows.

    Args:
        num_prompts: N.
        rows: one dictionary a group, with the keys of :data:`COLUMNS`.

    Returns:
        the trace.

    Raises:
        TypeError: if ``num_prompts`` is no integer, or ``rows`` holds no dictionaries.
        ValueError: for a row that is not valid; the message counts rows from 1.
    """
    checks.require_counts(num_prompts=num_prompts)
    checks.require_setting(num_prompts < 2**31, "num_prompts", num_prompts, "below 2**31")
    checks.require_type(Iterable, "a sequence of dictionaries", rows=rows)
    kept: list[dict] = []
    places: dict[tuple[int, int], int] = {}
    for number, row in enumerate(rows, start=1):
        checks.require_type(dict, "a sequence of dictionaries", rows=row)
        _check_row(row, num_prompts, f"rows, the one numbered {number}", places, number)
        kept.append(row)
    return _columns(num_prompts, kept)


def write_trace(path: Path | str, trace: Trace) -> None:
    """Write JSONL, or Parquet if the name ends in ``.parquet``.

    Args:
        path: the file.
        trace: what to write.

    Raises:
        TypeError: if ``trace`` is something else.
        ImportError: for Parquet without pyarrow.
    """
    checks.require_type(Trace, "of make_trace or read_trace", trace=trace)
    path = Path(path)
    if path.suffix == ".parquet":
        _write_parquet(path, trace)
        return
    with path.open("w", encoding="utf-8") as file:
        file.write(header_line(trace.num_prompts))
        for values in zip(*trace[1:], strict=True):
            row = {name: v.item() for name, v in zip(COLUMNS, values, strict=True)}
            row["length"] = None if np.isnan(row["length"]) else row["length"]
            file.write(row_line(row))


def header_line(num_prompts: int) -> str:
    """The first line of a JSONL trace.

    Args:
        num_prompts: N, of the pool.

    Returns:
        the line, its end included.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is not positive.
    """
    checks.require_counts(num_prompts=num_prompts)
    return json.dumps({"format": FORMAT, "version": VERSION, "num_prompts": num_prompts}) + "\n"


def row_line(row: dict) -> str:
    """The line of one group in a JSONL trace.

    Args:
        row: the values of :data:`COLUMNS`, by name.

    Returns:
        the line, its end included.

    Raises:
        TypeError: if ``row`` is no dictionary.
        ValueError: if it lacks a name.

    >>> row = {"step": 0, "prompt": 7, "passes": 3, "trials": 8, "length": 212.5, "policy": 0}
    >>> json.loads(row_line(row)) == row
    True
    """
    checks.require_type(dict, "a dictionary", row=row)
    if missing := [name for name in COLUMNS if name not in row]:
        raise ValueError(f"row={row!r} lacks {', '.join(missing)}")
    return json.dumps({name: row[name] for name in COLUMNS}) + "\n"


def read_trace(path: Path | str) -> Trace:
    """Read and validate a trace.

    Args:
        path: a file of :func:`write_trace`.

    Returns:
        the trace.

    Raises:
        ValueError: if a line is not valid; the message names the file and the line.
        ImportError: for Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    kept: list[dict] = []
    places: dict[tuple[int, int], int] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        num_prompts = _check_header(_parse(file.readline(), f"{path}, line 1"), f"{path}, line 1")
        for number, line in enumerate(file, start=2):
            where = f"{path}, line {number}"
            if not line.strip():  # editors and `echo` leave such lines
                continue
            row = _parse(line, where)
            _check_row(row, num_prompts, where, places, number)
            kept.append(row)
    return _columns(num_prompts, kept)


def _parse(line: str, where: str) -> dict:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error}): the file was cut off or edited") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be a JSON object, got {line.strip()[:60]!r}")
    return value


def _check_header(header: dict, where: str) -> int:
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ValueError(f"{where}: a trace starts with format {FORMAT!r} and version {VERSION}")
    count = header.get("num_prompts")
    if type(count) is not int or not 1 <= count < 2**31:
        raise ValueError(
            f"{where}: num_prompts must be a positive integer (31 bits), got {count!r}"
        )
    return count


def _check_row(row: dict, num_prompts: int, where: str, places: dict, number: int) -> None:
    if set(row) != set(COLUMNS):
        raise ValueError(f"{where}: must have the keys {', '.join(COLUMNS)}, got {sorted(row)}")
    for name in COLUMNS:
        real = name == "length" and (row[name] is None or isinstance(row[name], int | float))
        if not real and type(row[name]) is not int:
            raise ValueError(f"{where}: {name} must be an integer, got {row[name]!r}")
    bounds = {
        "step": 0 <= row["step"] < 2**31,
        "prompt": 0 <= row["prompt"] < num_prompts,
        "passes": 0 <= row["passes"] <= row["trials"],
        "trials": row["trials"] < 2**31,
        "length": row["length"] is None or 0 <= row["length"] < float("inf"),
        "policy": -(2**31) <= row["policy"] <= row["step"],
    }
    for name, sound in bounds.items():
        if not sound:
            raise ValueError(f"{where}: {name}={row[name]} is out of range in {row}")
    earlier = places.setdefault((row["step"], row["prompt"]), number)
    if earlier != number:
        raise ValueError(
            f"{where}: prompt {row['prompt']} has a group at step {row['step']} already ({earlier})"
        )


def _columns(num_prompts: int, rows: list[dict]) -> Trace:
    columns = {
        name: np.array([row[name] for row in rows], np.int32)
        for name in COLUMNS
        if name != "length"
    }
    length = [np.nan if row["length"] is None else row["length"] for row in rows]
    return Trace(num_prompts=num_prompts, length=np.array(length, np.float32), **columns)


def _arrow():
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "Parquet traces need pyarrow: pip install 'dpsjax[parquet]', or use .jsonl"
        ) from None
    return pyarrow


def _write_parquet(path: Path, trace: Trace) -> None:
    arrow = _arrow()
    columns = {name: value for name, value in trace._asdict().items() if name in COLUMNS}
    table = arrow.table(columns).replace_schema_metadata(
        {"format": FORMAT, "version": str(VERSION), "num_prompts": str(trace.num_prompts)}
    )
    arrow.parquet.write_table(table, path)


def _read_parquet(path: Path) -> Trace:
    table = _arrow().parquet.read_table(path)
    found = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    header = {
        "format": found.get("format"),
        **{name: int(found[name]) for name in ("version", "num_prompts") if name in found},
    }
    num_prompts = _check_header(header, str(path))
    rows = table.to_pylist()
    for row in rows:
        row["length"] = None if row.get("length") != row.get("length") else row.get("length")
    return make_trace(num_prompts, rows)
