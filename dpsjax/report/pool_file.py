"""``pool.jsonl`` and ``held-out.jsonl`` of a folder of results: problems in words, one a line.

So a page about a run can be made where its data are not, and after they have changed.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpsjax.files import write_atomically
from dpsjax.tasks.base import Problem

POOL, HELD_OUT, IMAGES = "pool.jsonl", "held-out.jsonl", "images"


def write_pool(folder: Path, problems: Sequence[Problem], name: str = POOL) -> Path:
    """Write the problems of a pool, and their images where they have some.

    Args:
        folder: DIR.
        problems: the pool; a prompt is a position in it. The ``images`` of a problem are paths, or
            the bytes of image files, which go to ``DIR/images`` under names of their contents.
        name: of the file.

    Returns:
        the file, there complete or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / name

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as stream:
            for number, problem in enumerate(problems):
                stream.write(json.dumps(_line(folder, number, problem)) + "\n")

    write_atomically(path, write)
    return path


def _line(folder: Path, number: int, problem: Problem) -> dict[str, Any]:
    values = {
        "prompt": number,
        "id": problem.id,
        "source": problem.source,
        "text": problem.text(),
    }
    places = [place for image in problem.images if (place := _place(folder, image))]
    return values | ({"images": places} if places else {})


def _place(folder: Path, image: Any) -> str:
    """Where an image is, from the folder or as a whole path; "" where it is none."""
    if isinstance(image, Mapping):  # as datasets hold them
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str | os.PathLike):
        return str(Path(image).absolute())
    if not isinstance(image, bytes):
        return ""
    kind = "jpg" if image.startswith(b"\xff\xd8") else "png"
    if kind == "png" and not image.startswith(b"\x89PNG"):
        image = _as_png(image)
    name = f"{hashlib.sha256(image).hexdigest()[:16]}.{kind}"
    place = folder / IMAGES / name
    if not place.exists():
        write_atomically(place, lambda part: part.write_bytes(image))
    return f"{IMAGES}/{name}"


def _as_png(image: bytes) -> bytes:
    """A picture of another kind, which a browser may not show; as it is where it is none."""
    from PIL import Image  # comes with matplotlib

    made = io.BytesIO()
    try:
        Image.open(io.BytesIO(image)).save(made, "PNG")
    except (OSError, ValueError):
        return image
    return made.getvalue()


def read_pool(folder: Path, name: str = POOL) -> list[dict[str, Any]]:
    """The lines of ``DIR/pool.jsonl`` or of another such file; none where it is not there.

    Raises:
        ValueError: a line is not a JSON object; it names the line.
    """
    path = folder / name
    return read_lines(path) if path.exists() else []


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines that may grow: a last line without an end is left out.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a JSON object; it names the line.
    """
    rows = []
    # Not splitlines: a text may hold other ends of lines.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object: {line[:80]!r}")
        rows.append(row)
    return rows
