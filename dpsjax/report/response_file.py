"""``responses.jsonl`` of a run: the responses that it keeps, a JSON object a line.

A line knows its step, so a run that goes on from a checkpoint drops those of the steps after it,
which will be made, and written, again.
"""

import json
from collections.abc import Iterable, Iterator
from io import TextIOBase
from pathlib import Path
from typing import Any


def begin_responses(path: Path, after: int) -> None:
    """Keep the lines of the steps that are done; the file is there complete or not at all.

    Args:
        path: DIR/responses.jsonl; it need not exist.
        after: number of the last step that is done. With 0 the file is empty then: a run that
            begins makes its first evaluation again.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        if after and path.exists():
            append_responses(stream, (row for row in _whole(path) if row["step"] <= after))
    partial.replace(path)


def append_responses(stream: TextIOBase, rows: Iterable[dict[str, Any]]) -> None:
    """Write lines, and hand them to the operating system.

    Args:
        stream: open for text.
        rows: of :func:`dpsjax.loop.responses.line_of`.
    """
    stream.writelines(json.dumps(row) + "\n" for row in rows)
    stream.flush()


def read_responses(path: Path) -> list[dict[str, Any]]:
    """The kept responses of a run.

    Args:
        path: DIR/responses.jsonl.

    Returns:
        a dictionary for each; a last line that was cut off is left out.

    Raises:
        OSError: it cannot be read.
    """
    return list(_whole(path))


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """Lines that are there completely; a kill may have cut the last one."""
    # Not splitlines: a text may hold other ends of lines, escaped or not.
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            yield row
