"""One digest of a data set, so that a belief is never read as that of other prompts."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dpsjax import checks


def fingerprint(rows: Iterable[Any]) -> str:
    """A digest of the rows of a data set, in their order.

    Args:
        rows: strings, numbers, bytes, arrays, images of PIL, or lists and dictionaries of these: a
            list, an array, a data set of Hugging Face, ... It is read through once.

    Returns:
        64 hexadecimal digits; equal rows in equal order give equal ones, in any process.

    Raises:
        TypeError: ``rows`` are none, or one holds something else; the message names its place.

    >>> fingerprint(["1 + 1", "2 + 2"]) == fingerprint(("1 + 1", "2 + 2"))
    True
    >>> fingerprint(["1 + 1", "2 + 2"]) == fingerprint(["2 + 2", "1 + 1"])
    False
    """
    if isinstance(rows, str | bytes | Mapping):
        raise TypeError(f"rows={checks.shown(rows)} must be a sequence of rows")
    checks.require_type(Iterable, "a sequence of rows", rows=rows)
    total = hashlib.sha256()
    for place, row in enumerate(rows):
        try:
            text = json.dumps(row, sort_keys=True, default=_plain)
        except (TypeError, ValueError) as error:
            raise TypeError(f"rows[{place}]={checks.shown(row)}: {error}") from None
        total.update(text.encode() + b"\n")
    return total.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know, as what it does."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size"):
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        return {"image": [value.mode, list(value.size), digest]}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__array__") or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "biufSU":
            return {"array": [str(array.dtype), array.tolist()]}
    raise TypeError(f"a {type(value).__name__} has no digest")
