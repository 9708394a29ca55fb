"""The saved file: a digest, then arrays and a header of JSON in NumPy's archive, without pickle."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpsjax.files import write_atomically

_MAGIC = b"dpsjax-curriculum 1\n"
_HEADER = "header.json"


def save(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file at once or not at all; it has reached the disk when this returns.

    Args:
        path: the file; its folder is made.
        header: JSON-serialisable.
        arrays: of any type, those of ``ml_dtypes`` too.

    Raises:
        OSError: it cannot be written.
    """
    types = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    text = json.dumps({"arrays": types, **header})
    raw = {_HEADER: text.encode(), **{name: array.tobytes() for name, array in arrays.items()}}
    parts: dict[str, Any] = {name: np.frombuffer(part, np.uint8) for name, part in raw.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **parts)

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            stream.write(_MAGIC + hashlib.sha256(buffer.getbuffer()).digest())
            stream.write(buffer.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())

    write_atomically(path, write)


def load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What :func:`save` wrote.

    Returns:
        ``(header, arrays)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no such file; names it.
    """
    raw = path.read_bytes()
    digest, body = raw[len(_MAGIC) :][:32], raw[len(_MAGIC) + 32 :]
    if not raw.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError(f"{path} is no file of Curriculum.save, or damaged")
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        header = json.loads(bytes(file[_HEADER]))
        arrays = {
            name: np.frombuffer(bytearray(file[name]), _dtype(kind)).reshape(shape)
            for name, (kind, shape) in header["arrays"].items()
        }
    return header, arrays


def _dtype(name: str) -> np.dtype:
    import ml_dtypes  # comes with jax

    return np.dtype(getattr(ml_dtypes, name, name))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two flat dictionaries, a line each.

    >>> differences({"batch_size": 8, "seed": 0}, {"batch_size": 16, "seed": 0})
    ['batch_size: 8 in the file, 16 here']
    """
    names = list(dict.fromkeys([*now, *saved]))
    return [
        f"{name}: {_shown(saved, name)} in the file, {_shown(now, name)} here"
        for name in names
        if name not in saved or name not in now or saved[name] != now[name]
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "nothing"
