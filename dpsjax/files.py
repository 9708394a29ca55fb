"""Text and JSON files: UTF-8 whatever the locale, and written at once or not at all.

And pictures as the simplest of files.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["netpbm", "read_json", "read_text", "write_atomically", "write_json"]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; a byte order mark in front is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8; names the file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}; convert it to UTF-8") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not UTF-8, not JSON, or no object; names the file.
    """
    try:
        values = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds {str(values)[:40]!r}, and must hold an object")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, its keys in order."""
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there: readers see all of it or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def netpbm(pixels: np.ndarray) -> bytes:
    r"""A picture file (Netpbm, binary) of grey ``[H, W]`` or coloured ``[H, W, 3]`` bytes.

    >>> netpbm(np.zeros((2, 3), np.uint8))[:11]
    b'P5 3 2 255\n'
    """
    height, width = pixels.shape[:2]
    kind = "P5" if pixels.ndim == 2 else "P6"
    return f"{kind} {width} {height} 255\n".encode() + np.ascontiguousarray(pixels).tobytes()
