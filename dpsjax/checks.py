"""Input checks that speak: an exception outside ``jit``, a ``checkify`` error inside.

A check on concrete values raises ``ValueError`` at once. On traced values it becomes a
``checkify.debug_check``: it costs nothing in an ordinary ``jit``, and is enforced when the caller
wraps the function in ``jax.experimental.checkify.checkify``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify

from dpsjax.types import Array


def is_concrete(*values) -> bool:
    """Whether every value can be read now, that is, none is being traced."""
    return not any(isinstance(value, Tracer) for value in values)


def require(condition, message: str, **values) -> None:
    """Demand that ``condition`` holds everywhere.

    Args:
        condition: boolean scalar or array, concrete or traced.
        message: what is wrong and what to do; ``{name}`` fields are filled from ``values``.
        **values: shown in the message, concrete or traced.

    Raises:
        ValueError: if the condition is concrete and false anywhere.
    """
    if is_concrete(condition, *values.values()):
        if not np.all(condition):
            shown = {name: np.asarray(value).tolist() for name, value in values.items()}
            raise ValueError(message.format(**shown))
        return
    checkify.debug_check(
        jnp.all(condition), message, **{name: jnp.asarray(v) for name, v in values.items()}
    )


def integer_vector(name: str, value, length: int | None = None) -> Array:
    """Return ``value`` as an int32 vector.

    Args:
        name: the argument's name, for the message.
        value: an array or sequence of integers.
        length: the length it must have, if any.

    Raises:
        TypeError: if it does not hold integers.
        ValueError: if it is not a vector, or has another length.
    """
    array = value if isinstance(value, jax.Array | np.ndarray) else np.asarray(value)
    if array.size == 0 and not np.issubdtype(array.dtype, np.integer):
        array = np.zeros(array.shape, np.int32)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got {array.dtype}: cast it to int32")
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector [B], got shape {array.shape}")
    if length is not None and array.shape[0] != length:
        raise ValueError(f"{name} must have length {length}, got {array.shape[0]}")
    return jnp.asarray(array, dtype=jnp.int32)


def require_range(low: float, high: float, **values) -> None:
    """Demand that all numbers of arrays lie in a range.

    Args:
        low: smallest.
        high: largest; infinite for any finite number.
        **values: by name, concrete or traced.

    Raises:
        ValueError: one holds NaN, infinity or a number outside. Traced, it is a ``checkify`` error.
    """
    for name, value in values.items():
        value = jnp.asarray(value)
        require(
            jnp.isfinite(value) & (value >= low) & (value <= high),
            f"{name} must be finite and lie in [{low}, {high}], got {{{name}}}",
            **{name: value},
        )


def require_finite(**values) -> None:
    """Demand that settings are finite numbers.

    Args:
        **values: by name: numbers or arrays of them. None and traced values pass.

    Raises:
        TypeError: one is no number.
        ValueError: one is NaN or infinite.

    >>> require_finite(decay=0.5, prior=None)
    """
    for name, value in values.items():
        if value is None or not is_concrete(value):
            continue
        array = np.asarray(value)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise TypeError(f"{name}={value!r} must be a number")
        if not np.all(np.isfinite(array.astype(np.float64))):
            raise ValueError(f"{name}={value!r} must be finite, not NaN or infinite")


def require_counts(**values) -> None:
    """Demand that settings are whole numbers of at least 1.

    Args:
        **values: by name; None passes.

    Raises:
        TypeError: one is no integer.
        ValueError: one is below 1.

    >>> require_counts(group=8, refit=None)
    """
    for name, value in values.items():
        if value is None or not is_concrete(value):
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{name}={value!r} must be an integer")
        if value < 1:
            raise ValueError(f"{name}={value!r} must be at least 1")


def require_setting(holds: bool, name: str, value: object, allowed: str) -> None:
    """Demand something of a setting.

    Args:
        holds: whether the value is fine; false for NaN, for which every comparison is false.
        name: of the setting.
        value: shown in the message.
        allowed: what it must be, after "must be".

    Raises:
        ValueError: if it does not hold.
    """
    if not holds:
        raise ValueError(f"{name}={value!r} must be {allowed}")
