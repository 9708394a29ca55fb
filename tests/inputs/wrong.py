"""One wrong argument at a time: a defined result, or an error that names the argument."""

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

NAN, INFINITE = float("nan"), float("inf")
NOTHING = object()  # an instance of no use to anybody


@dataclass(frozen=True)
class Row:
    """A public callable, and arguments it works with.

    Attributes:
        call: what is called.
        good: arguments by name.
        also: further wrong values of some arguments.
        said: what errors call an argument, where it is the content of a file.
        free: arguments that are not read but passed on or shown, so that anything goes.
        loose: whether NaN in the arguments may come out again.
    """

    call: Callable
    good: dict[str, Any]
    also: dict[str, list] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    loose: bool = False


def wrong(value: Any) -> Iterator[Any]:
    """What might be given by mistake instead of a good value."""
    if isinstance(value, bool):
        yield from ("x", NOTHING)
    elif isinstance(value, int):
        yield from (-1, 0, 1.5, NAN, INFINITE, "x", None, (), True, NOTHING)
    elif isinstance(value, float):
        yield from (NAN, INFINITE, -INFINITE, -1.0, 0, "x", None, (), NOTHING)
    elif isinstance(value, str):
        yield from ("", "nonsense", 3, None, NOTHING)
    elif isinstance(value, jax.Array | np.ndarray):
        yield from ("x", None, NOTHING, (), {}, 3)
        yield from _wrong_arrays(value)
    elif isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        yield from ((), 3, None, NOTHING, ("x",), (NAN,), (-1,), (None,), (*value, value[-1]))
    else:
        yield from (None, 3, "x", (), {}, NOTHING)


def _wrong_arrays(value: ArrayLike) -> Iterator[Any]:
    if jnp.issubdtype(jnp.asarray(value).dtype, jax.dtypes.prng_key):
        yield jnp.zeros(3, jnp.float32)
        return
    value = np.asarray(value)
    yield value[None]
    yield value.astype(np.complex64)
    if value.ndim:
        yield value[0]
        yield value[:0]
        yield np.concatenate([value, value])
    if value.dtype.kind == "f":
        yield from (np.full_like(value, fill) for fill in (NAN, INFINITE, -1))
        yield value.astype(np.int32)
    elif value.dtype.kind == "i":
        yield from (np.full_like(value, fill) for fill in (-7, 10**6))
        yield value.astype(np.float32)
    elif value.dtype.kind == "b":
        yield value.astype(np.float32) + np.float32(0.5)
        yield np.zeros_like(value)


def finite(result: Any) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array | np.ndarray)]
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    plain = [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, float)]
    return all(np.isfinite(np.asarray(leaf, np.complex128)).all() for leaf in floats) and all(
        math.isfinite(leaf) for leaf in plain
    )


def named(error: BaseException, argument: str) -> bool:
    """Whether a message names the argument, and says more than its name."""
    text = str(error)
    return re.search(rf"(\b|_){argument}\b", text) is not None and len(text) > len(argument) + 10


def complaints(row: Row) -> list[str]:
    """Every wrong argument that gives neither a defined result nor its own name."""
    assert finite(row.call(**row.good)) or row.loose, "the good arguments do not work"
    out = []
    for argument, value in row.good.items():
        if argument in row.free:
            continue
        for bad in [*wrong(value), *row.also.get(argument, [])]:
            try:
                result = row.call(**row.good | {argument: bad})
            except (ValueError, TypeError) as error:
                if not named(error, row.said.get(argument, argument)):
                    out.append(f"{argument}={_shown(bad)}: {type(error).__name__}: {error}"[:300])
            except Exception as error:
                out.append(
                    f"{argument}={_shown(bad)}: raises {type(error).__name__}: {error}"[:300]
                )
            else:
                if not (row.loose or finite(result)):
                    out.append(f"{argument}={_shown(bad)}: gives {_shown(result)}")
    return out


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:120]


def public(package: str) -> set[str]:
    """``module.name`` of every public callable that is written in a package."""
    found = importlib.import_module(package)
    names = [package]
    if hasattr(found, "__path__"):
        names += [f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__)]
    out = set()
    for name in names:
        for key, value in vars(importlib.import_module(name)).items():
            made_here = getattr(value, "__module__", None) == name
            record = inspect.isclass(value) and issubclass(value, tuple)
            if made_here and callable(value) and not key.startswith("_") and not record:
                out.add(f"{name.removeprefix('dpsjax.')}.{key}")
    return out
