"""``trace.jsonl`` of a run: each group of rollouts, as the laboratory replays it.

It holds nothing that ``metrics.jsonl`` does not. A run that goes on writes it anew from the lines
there, which a resume has cut to those of its checkpoint: so no step can be missing, or be twice.
"""

from collections.abc import Iterator, Sequence
from io import TextIOBase
from pathlib import Path

from dpsjax.loop.metrics import Record
from dpsjax.tasks.traces import header_line, row_line


def begin_trace(path: Path, num_prompts: int, records: Sequence[Record]) -> None:
    """Write the steps that are done; the file is there complete or not at all.

    Args:
        path: DIR/trace.jsonl.
        num_prompts: N, of the pool.
        records: of all steps so far.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(header_line(num_prompts))
        for record in records:
            append_step(stream, record)
    partial.replace(path)


def append_step(stream: TextIOBase, record: Record) -> None:
    """Write the groups of one step, and hand them to the operating system.

    Args:
        stream: open for text.
        record: of :func:`dpsjax.loop.metrics.step_record`.
    """
    stream.writelines(row_line(row) for row in trace_rows(record))
    stream.flush()


def trace_rows(record: Record) -> Iterator[dict]:
    """The groups of a step, in the columns of :mod:`dpsjax.tasks.traces`.

    A prompt that several rounds of the step asked gets one row with all its rollouts, and one
    without a valid rollout gets none.

    Args:
        record: of a step.

    Yields:
        the rows. Steps count from 0 there; the policy is that of the step.
    """
    groups = record["groups"]
    lengths = groups.get("length") or [None] * len(groups["prompt"])
    rows: dict[int, dict] = {}
    columns = (groups["prompt"], groups["passes"], groups["trials"], lengths)
    for prompt, passes, trials, length in zip(*columns, strict=True):
        if not trials:
            continue
        row = rows.setdefault(prompt, {"passes": 0, "trials": 0, "length": None})
        if length is not None:
            tokens = (row["length"] or 0.0) * row["trials"] + length * trials
            row["length"] = round(tokens / (row["trials"] + trials), 3)
        row["passes"] += passes
        row["trials"] += trials
    step = record["step"] - 1
    for prompt, row in rows.items():
        yield {"step": step, "prompt": prompt, **row, "policy": step}
