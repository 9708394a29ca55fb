"""Logs of rollouts, whoever wrote them, as one table of groups.

- a trace of this library (JSONL or Parquet);
- CSV with the columns ``prompt,passes,trials``, and ``step`` if there is one;
- JSONL with a line a rollout, in one file or in a folder of files: the dumps of verl
  (``trainer.rollout_data_dir``), of prime-rl, and others with the same names;
- Parquet with a row a rollout: TRL's ``completions/`` (its reward functions are added up).
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpsjax.tasks.traces import FORMAT, read_trace

# The first that a row has is taken.
PROMPT = ("prompt_id", "example_id", "task_id", "uid", "input", "prompt", "task")
REWARD = ("accuracy", "acc", "correct", "reward", "score")
TOTAL = ("reward", "score")
STEP = ("step", "global_step")
PARSED = ("pred", "parsed", "extracted", "extracted_answer", "parsed_answer")
_NOT_REWARDS = ("step", "prompt", "completion", "advantage", "completion_ids", "images")


class Log(NamedTuple):
    """M groups in the order of steps, and what single rollouts say, where the log has them."""

    names: list[str]  # N prompts as the log calls them
    step: np.ndarray  # int64[M]
    prompt: np.ndarray  # int64[M] in 0..N-1
    passes: np.ndarray  # int64[M]
    trials: np.ndarray  # int64[M]
    shaped: np.ndarray  # bool[M] whether the total rewards of the group differ
    parsed: np.ndarray  # float64[M] share of answers that parse to something; NaN if not known
    no_verdict: int = 0  # rollouts without a reward, left out of the groups


def read_log(path: Path | str, solved: float = 0.5) -> Log:
    """Read a log; see the module for the kinds that are known.

    Args:
        path: a file, or a folder of JSONL or Parquet files.
        solved: a reward above it is a pass.

    Returns:
        the groups.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of none of the kinds, or holds no rollouts; the message names the place.
        ImportError: for Parquet without pyarrow.
    """
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    known = [p for p in files if p.suffix in (".jsonl", ".parquet", ".csv")]
    if not known:
        raise ValueError(f"{path} holds no .jsonl, .parquet or .csv file of rollouts")
    first = known[0]
    if first.suffix == ".csv":
        return _groups_of_csv(first)
    if len(known) == 1 and _is_trace(first):
        trace = read_trace(first)
        rows = trace.step, trace.prompt, trace.passes, trace.trials
        return _ordered([str(i) for i in range(trace.num_prompts)], *rows)
    return _grouped((row for file in known for row in _rows(file)), path, solved)


def _is_trace(path: Path) -> bool:
    if path.suffix == ".parquet":
        schema = _parquet().read_schema(path)
        return {"passes", "trials", "policy"} <= set(schema.names)
    with path.open(encoding="utf-8", errors="replace") as stream:
        return f'"{FORMAT}"' in stream.readline()


def _ordered(names, step, prompt, passes, trials, shaped=None, parsed=None, lost=0) -> Log:
    step, prompt, passes, trials = (np.asarray(v, np.int64) for v in (step, prompt, passes, trials))
    order = np.argsort(step, kind="stable")
    mixed = (passes > 0) & (passes < trials)
    shaped = mixed if shaped is None else np.asarray(shaped, bool)
    parsed = np.full(step.size, np.nan) if parsed is None else np.asarray(parsed, np.float64)
    return Log(
        names,
        step[order],
        prompt[order],
        passes[order],
        trials[order],
        shaped[order],
        parsed[order],
        lost,
    )


def _groups_of_csv(path: Path) -> Log:
    names: dict[str, int] = {}
    columns: list[tuple[int, int, int, int]] = []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"prompt", "passes", "trials"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path}, line 1: must name the columns prompt, passes and trials")
        for number, row in enumerate(reader, start=2):
            try:
                passes, trials = int(row["passes"]), int(row["trials"])
                step = int(row.get("step") or 0)
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {number}: no integers in {row}") from None
            if not 0 <= passes <= trials:
                raise ValueError(f"{path}, line {number}: passes must lie in 0..trials in {row}")
            columns.append((step, names.setdefault(row["prompt"], len(names)), passes, trials))
    if not columns:
        raise ValueError(f"{path} holds no group")
    of_step, prompt, passes, trials = zip(*columns, strict=True)
    return _ordered(list(names), of_step, prompt, passes, trials)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".parquet":
        table = _parquet().read_table(path)
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(table.to_pylist(), start=1))
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where}: must be a JSON object")
            yield where, row


def _grouped(rows: Iterable[tuple[str, dict]], path: Path, solved: float) -> Log:
    names: dict[str, int] = {}
    columns: list[tuple[int, int, float, float, float]] = []
    for where, row in rows:
        prompt = _first(row, PROMPT, where)
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
        verdict, total = _rewards(row, where)
        step = next((int(row[n]) for n in STEP if row.get(n) is not None), 0)
        answers = [row[name] for name in PARSED if name in row]
        parsed = float(answers[0] not in (None, "")) if answers else float("nan")
        columns.append((step, names.setdefault(text, len(names)), verdict, total, parsed))
    if not columns:
        raise ValueError(f"{path} holds no rollout")
    step, prompt, verdict, total, parsed = map(np.array, zip(*columns, strict=True))
    told = ~np.isnan(verdict)
    places, group = np.unique(np.stack([step, prompt])[:, told], axis=1, return_inverse=True)
    group, size = group.reshape(-1), places.shape[1]
    count = np.bincount(group, minlength=size)
    passes = np.bincount(group, verdict[told] > solved, minlength=size)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, group, total[told])
    np.maximum.at(high, group, total[told])
    share = np.bincount(group, parsed[told], minlength=size) / np.maximum(count, 1)
    seen = (places[0], places[1], passes, count, high > low, share)
    return _ordered(list(names), *seen, lost=int((~told).sum()))


def _first(row: dict, names: Iterable[str], where: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ValueError(f"{where}: none of {', '.join(names)} in {sorted(row)[:12]}")


def _rewards(row: dict, where: str) -> tuple[float, float]:
    """The verdict on the answer, and the reward that training used."""
    if "completion" in row and "advantage" in row:  # TRL: a column for each reward function
        values = [v for n, v in row.items() if n not in _NOT_REWARDS and _is_number(v)]
        total = float(sum(values)) if values else float("nan")
        return total, total
    verdict = next((row[name] for name in REWARD if name in row), "nothing")
    if verdict is not None and not _is_number(verdict):
        raise ValueError(f"{where}: none of {', '.join(REWARD)} is a number in {sorted(row)[:12]}")
    verdict = float("nan") if verdict is None else float(verdict)
    total = next((row[name] for name in TOTAL if _is_number(row.get(name))), verdict)
    return verdict, float(total)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _parquet():
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'dpsjax[parquet]'") from None
    return pyarrow.parquet
