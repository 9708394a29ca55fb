"""What a selector is, in words: its functions and the numbers that they hold.

A selector is functions, which no file can hold. Its description can be compared: two selectors of
the same parts and the same numbers have the same one, in any process.
"""

import dataclasses
import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dpsjax.selectors.base import Selector

_SHOWN = 16  # larger arrays are described by their digest


def describe(selector: Selector) -> dict[str, Any]:
    """The functions and hyperparameters of a selector, by where they are found.

    Args:
        selector: a recipe or a chain.

    Returns:
        a flat JSON-serialisable dictionary.

    >>> from dpsjax import selectors
    >>> this, other = describe(selectors.dps(decay=0.5)), describe(selectors.dps(decay=0.7))
    >>> [value for name, value in other.items() if value != this[name]]
    [0.699999988079071]
    """
    found: dict[str, Any] = {}
    _walk(selector, "selector", found, {})
    return found


def _walk(value: Any, path: str, found: dict[str, Any], seen: dict[int, Any]) -> None:
    if value is None or isinstance(value, bool | int | str):
        found[path] = value
        return
    if isinstance(value, float):
        found[path] = value if np.isfinite(value) else repr(value)
        return
    while isinstance(value, types.FunctionType) and hasattr(value, "__wrapped__"):
        value = value.__wrapped__  # without the checks of annotations, for example
    if id(value) in seen:  # most values are held by several functions
        return
    seen[id(value)] = value
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        found[path] = _numbers(np.asarray(value))
    elif isinstance(value, types.FunctionType):
        found[path] = f"{value.__module__}.{value.__qualname__}"
        _walk_function(value, path, found, seen)
    elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        found[path] = getattr(value, "__qualname__", value.__name__)
    elif isinstance(value, np.dtype):
        found[path] = value.name
    else:
        for name, part in _parts(value):
            _walk(part, f"{path}.{name}", found, seen)


def _walk_function(function: types.FunctionType, path: str, found, seen) -> None:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        _walk(cell.cell_contents, f"{path}.{name}", found, seen)
    defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
    for name, part in _parts(defaults):
        _walk(part, f"{path}.defaults.{name}", found, seen)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What a value is made of, by name."""
    if isinstance(value, Selector):
        own = zip(value._fields, value, strict=True)
        return [(name, part) for name, part in own if part is not Selector._field_defaults[name]]
    if isinstance(value, tuple) and (fields := getattr(value, "_fields", ())):
        return list(zip(fields, value, strict=True))
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, tuple | list):
        return [(str(place), part) for place, part in enumerate(value)]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("func", value.__func__), ("self", value.__self__)]
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if hasattr(value, "__wrapped__"):  # jitted
        return [("wrapped", value.__wrapped__)]
    return [("type", type(value)), *getattr(value, "__dict__", {}).items()]


def _numbers(array: np.ndarray) -> Any:
    if array.size > _SHOWN:
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"{array.dtype}{list(array.shape)} {digest}"
    wide = array.astype(np.float64) if array.dtype.kind in "fV" else array
    listed = wide.tolist()
    return listed if np.all(np.isfinite(wide.astype(np.float64))) else repr(listed)
