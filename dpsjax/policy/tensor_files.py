"""Safetensors files: their header, checked before anything is read, and their tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (registers bfloat16 with NumPy, which safetensors needs to read it)
import numpy as np
import safetensors
from safetensors.numpy import save_file

__all__ = ["open_tensors", "read_header", "save_tensors"]


def read_header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file, checked against the file's size.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file or ends too early; names file and tensor.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path}: truncated or not a safetensors file ({size} bytes)")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a safetensors file: {error}") from error
    _check_header(path, header)
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][1] > size - 8 - length:
            raise ValueError(
                f"{path}: truncated: tensor {name!r} ends at byte "
                f"{entry['data_offsets'][1] + 8 + length}, the file at {size}; copy it again"
            )
    return header


def _check_header(path: Path, header: Any) -> None:
    """Refuse a header of another form than safetensors have."""

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)

    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError(f"{path}: not a safetensors file: its header is no table")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        known = isinstance(entry, dict) and isinstance(entry.get("dtype"), str)
        known = known and numbers(entry.get("shape"))
        if not known or not numbers(entry.get("data_offsets")) or len(entry["data_offsets"]) != 2:
            raise ValueError(
                f"{path}: not a safetensors file: tensor {name!r} has no type, shape or place"
            )


def open_tensors(path: Path) -> Any:
    """A safetensors file, whose tensors can be sliced without reading them whole."""
    try:
        return safetensors.safe_open(path, framework="np")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from error


def save_tensors(
    tensors: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written; safetensors has an error of its own for a full disk.
    """
    try:
        save_file(dict(tensors), path, metadata=dict(metadata))
    except safetensors.SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
