"""Input checks that speak: an exception outside ``jit``, a ``checkify`` error inside.

A check on concrete values raises ``ValueError`` at once. On traced values it does nothing, unless
the function was wrapped in :func:`checkify`: then it becomes a ``checkify.check``. It is not
always there because a check is an effect, and JAX dispatches a jitted function with effects by
way of Python, which costs more than a whole step over a thousand prompts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify as jax_checkify

from dpsjax.types import Array


def is_concrete(*values) -> bool:
    """Whether every value can be read now, that is, none is being traced."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


# Part of the key of JAX's caches: a function traced without checks is traced again with them.
_checked = jax.make_user_context(False)


def checkify(function: Callable, errors=jax_checkify.user_checks) -> Callable:
    """``jax.experimental.checkify.checkify`` with this library's input checks switched on.

    Args:
        function: what to check; it may be jitted, and so may the result.
        errors: more kinds of error to look for, as in ``jax.experimental.checkify``.

    Returns:
        a function that returns ``(error, result)``; ``error.throw()`` raises what went wrong.

    >>> import dpsjax, jax, jax.numpy as jnp
    >>> params = dpsjax.hmm.params()
    >>> update = jax.jit(dpsjax.checkify(dpsjax.hmm.update))
    >>> one = jnp.ones(1, jnp.int32)
    >>> error, _ = update(params, dpsjax.hmm.init(params, 4), index=9 * one, state=one)
    >>> "index must lie in [0, 4)" in error.get()
    True
    """
    checked = jax_checkify.checkify(function, errors=errors)

    @functools.wraps(function)
    def call(*args, **kwargs):
        with _checked(True):
            return checked(*args, **kwargs)

    return call


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
    if _checked.value:
        shown = {name: jnp.asarray(value) for name, value in values.items()}
        jax_checkify.check(jnp.all(condition), message, debug=False, **shown)


def ids(name: str, value, total: int) -> np.ndarray | Array:
    """Prompt ids as int32[B], a NumPy array where they can be read now; -1 is padding.

    The range is judged before the cast, so that no id wraps round to another prompt.

    Args:
        name: the argument's name, for the message.
        value: an array or sequence of integers.
        total: N.

    Raises:
        TypeError: it does not hold integers.
        ValueError: it is not a vector, or an id is outside [-1, N). Traced, that is a ``checkify``
            error, and without ``checkify`` such ids become -1.
    """
    array = _integers(name, value)
    good = _within(array, -1, total - 1)
    require(
        good,
        f"{name} must lie in [0, {total}), or be -1 for padding; got {{value}}",
        value=array,
    )
    return _as_int32(array, good)


def counts(
    name: str, value, *, length: int | None = None, of: str = "", hint: str = ""
) -> np.ndarray | Array:
    """Counts as int32[B], a NumPy array where they can be read now.

    What is no count of 31 bits becomes -1 where it is traced.

    Args:
        name: the argument's name, for the message.
        value: an array or sequence of integers.
        length: the length it must have, if any.
        of: the argument that has this length, for the message.
        hint: what to do about numbers that are no integers.

    Raises:
        TypeError: it does not hold integers.
        ValueError: it is not a vector, has another length, or a number is negative or has more
            than 31 bits. Traced, the last is a ``checkify`` error.
    """
    array = _integers(name, value, hint)
    if length is not None and array.shape[0] != length:
        raise ValueError(f"{name} must have length {length}{of and f' of {of}'}, got {len(array)}")
    good = _within(array, 0, 2**31 - 1)
    require(good, f"{name} must be counts of at most 31 bits, got {{value}}", value=array)
    return _as_int32(array, good)


def states(name: str, value, num_states: int, index) -> np.ndarray | Array:
    """Solve states as int32[B], as long as ``index``; only rows that are no padding count.

    Raises:
        TypeError: it does not hold integers.
        ValueError: it has another length, or a state is outside [0, K). Traced, that is a
            ``checkify`` error, and without ``checkify`` such states become -1.
    """
    array = _integers(name, value)
    if array.shape[0] != index.shape[0]:
        raise ValueError(f"{name} must have length {index.shape[0]} of index, got {len(array)}")
    good = _within(array, 0, num_states - 1)
    if isinstance(good, np.ndarray) and is_concrete(index):
        good, padding = np.asarray(good), np.asarray(index) < 0
        array = np.where(padding, np.zeros((), array.dtype), array)
        good = good | padding
    else:
        good = good | (index < 0)
    require(good, f"{name} must lie in [0, {num_states}), got {{value}}", value=array)
    return _as_int32(array, good)


def _integers(name: str, value, hint: str = "") -> np.ndarray | Array:
    """A vector of integers, of its own type; NumPy's where it can be read now."""
    array = value if isinstance(value, Tracer) else _as_array(name, value)
    if array.size == 0 and not np.issubdtype(array.dtype, np.integer):
        array = np.zeros(array.shape, np.int32)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got {array.dtype}{hint and f': {hint}'}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector [B], got shape {array.shape}")
    return array.astype(np.int32) if array.dtype.itemsize < 4 else array


def _within(array, low: int, high: int):
    """Whether numbers of an integer array lie in a range, in the array's own type."""
    good = array <= min(high, int(np.iinfo(array.dtype).max))
    return good & (array >= low) if np.issubdtype(array.dtype, np.signedinteger) else good


def _as_int32(array, good) -> np.ndarray | Array:
    """The good ones, -1 in place of the others."""
    if isinstance(array, np.ndarray):
        return array.astype(np.int32, copy=False)  # all are good, or an error was raised
    safe = jnp.where(good, array, jnp.zeros((), array.dtype)).astype(jnp.int32)
    return jnp.where(good, safe, -1)


def rollout_counts(passes, trials) -> tuple[Array, Array]:
    """Return both as int32 vectors of one length, with 0 <= passes <= trials.

    Raises:
        TypeError: one does not hold integers.
        ValueError: one is not a vector, lengths differ, or a count is out of range. Traced, the
            last is a ``checkify`` error.
    """
    passes = jnp.asarray(counts("passes", passes))
    trials = jnp.asarray(counts("trials", trials, length=passes.shape[0], of="passes"))
    require(
        (passes >= 0) & (passes <= trials),
        "passes must lie in [0, trials], got {passes}",
        passes=passes,
    )
    return passes, trials


def rows(name: str, value, length: int) -> np.ndarray | Array:
    """Something known of each row, as an array [length, ...].

    Raises:
        TypeError: it holds no numbers.
        ValueError: its first axis has another length.
    """
    array = value if isinstance(value, jax.Array) else _as_array(name, value)
    if not _is_real(array.dtype):
        raise TypeError(f"{name}={_shown(value)} must be numbers")
    if array.ndim == 0 or array.shape[0] != length:
        raise ValueError(f"{name} must have shape ({length}, ...), got {array.shape}")
    return array


def require_range(low: float, high: float, **values) -> None:
    """Demand that all numbers of arrays lie in a range.

    Args:
        low: smallest.
        high: largest; infinite for any finite number.
        **values: by name, concrete or traced.

    Raises:
        ValueError: one holds NaN, infinity or a number outside. Traced, it is a ``checkify`` error.
    """
    require_finite(**values)
    for name, value in values.items():
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(jnp.result_type(float))
        require(
            jnp.isfinite(value) & (value >= low) & (value <= high),
            f"{name} must be finite and lie in [{low}, {high}], got {{{name}}}",
            **{name: value},
        )


def require_scalar(low: float, high: float, **values) -> None:
    """Demand that settings are single numbers in a range.

    Args:
        low: smallest.
        high: largest; infinite for any finite number.
        **values: by name, concrete or traced.

    Raises:
        TypeError: one is no number.
        ValueError: one is an array of them, not finite, or outside. Where traced, the range is a
            ``checkify`` error.
    """
    require_finite(**values)
    for name, value in values.items():
        if np.ndim(value):
            raise ValueError(f"{name} must be one number, got shape {np.shape(value)}")
    require_range(low, high, **values)


def require_positive(**values) -> None:
    """Demand that settings are single positive numbers.

    Args:
        **values: by name, concrete or traced.

    Raises:
        TypeError: one is no number.
        ValueError: one is an array of them, not finite, or not positive. Where traced, the last is
            a ``checkify`` error.
    """
    require_scalar(0.0, jnp.inf, **values)
    for name, value in values.items():
        positive = jnp.asarray(value) > 0
        require(positive, f"{name} must be positive, got {{{name}}}", **{name: value})


def require_finite(**values) -> None:
    """Demand that settings are finite numbers.

    Args:
        **values: by name: numbers or arrays of them. Traced values pass.

    Raises:
        TypeError: one is no number.
        ValueError: one is NaN or infinite.

    >>> require_finite(decay=0.5, prior=(1.0, 2.0))
    """
    for name, value in values.items():
        if not is_concrete(value):
            continue
        array = _as_array(name, value)
        if not _is_real(array.dtype):
            raise TypeError(f"{name}={value!r} must be a number")
        if not np.all(np.isfinite(array.astype(np.float64))):
            raise ValueError(f"{name}={value!r} must be finite, not NaN or infinite")


def require_integers(**values) -> None:
    """Demand that settings are whole numbers.

    Args:
        **values: by name.

    Raises:
        TypeError: one is something else, also a float or a boolean.
    """
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{name}={_shown(value)} must be an integer")


def require_counts(*, least: int = 1, **values) -> None:
    """Demand that settings are whole numbers, not too small.

    Args:
        least: the smallest allowed.
        **values: by name.

    Raises:
        TypeError: one is no integer.
        ValueError: one is below ``least``.

    >>> require_counts(group=8, capacity=64)
    """
    require_integers(**values)
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}={value!r} must be at least {least}")


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


def require_real(**values) -> None:
    """Demand that settings are real numbers; NaN and infinity are.

    Args:
        **values: by name.

    Raises:
        TypeError: one is something else, a boolean for example.
    """
    for name, value in values.items():
        real = isinstance(value, int | float | np.integer | np.floating)
        if not real or isinstance(value, bool):
            raise TypeError(f"{name}={_shown(value)} must be a number")


def require_key(**values) -> None:
    """Demand that arguments are single random keys, typed or raw.

    Args:
        **values: by name, concrete or traced.

    Raises:
        TypeError: one is something else.
    """
    for name, value in values.items():
        typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        raw = isinstance(value, jax.Array | np.ndarray) and value.dtype == np.uint32
        if not (typed and value.shape == ()) and not (raw and value.ndim == 1):
            raise TypeError(f"{name}={_shown(value)} must be one key, as of jax.random.key(0)")


def require_floats(**values) -> None:
    """Demand that arguments are arrays of floats with at least one axis.

    Args:
        **values: by name.

    Raises:
        TypeError: one is something else.
        ValueError: one is a scalar, or its last axis is empty.
    """
    for name, value in values.items():
        array = isinstance(value, jax.Array | np.ndarray)
        if not array or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"{name}={_shown(value)} must be an array of floats")
        if value.ndim == 0 or value.shape[-1] == 0:
            raise ValueError(f"{name} must have an axis that is not empty, got {value.shape}")


def require_callable(**values) -> None:
    """Demand that arguments are functions.

    Args:
        **values: by name.

    Raises:
        TypeError: one is something else.
    """
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name}={_shown(value)} must be a function")


def require_choice(choices: Sequence[str], **values) -> None:
    """Demand that settings are one of some names.

    Args:
        choices: the names.
        **values: by name.

    Raises:
        ValueError: one is something else.

    >>> require_choice(("skip", "stop"), on_nonfinite="skip")
    """
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name}={_shown(value)} must be one of {', '.join(choices)}")


def given(**values) -> dict[str, Any]:
    """Settings that are not None, for the checks of those that may be left out.

    >>> given(group=8, refit=None)
    {'group': 8}
    """
    return {name: value for name, value in values.items() if value is not None}


def require_type(wanted: type | tuple[type, ...], made_by: str, **values) -> None:
    """Demand that arguments are of a type.

    Args:
        wanted: the type, or several.
        made_by: where such a value comes from, for the message.
        **values: by name.

    Raises:
        TypeError: one is of another type.

    >>> require_type(str, "a name such as 'dps'", name="mopps")
    """
    for name, value in values.items():
        if not isinstance(value, wanted):
            raise TypeError(f"{name}={_shown(value)} must be {made_by}")


def require_items(wanted: type | tuple[type, ...], made_by: str, **values) -> None:
    """Demand that arguments are sequences whose items are of a type.

    Args:
        wanted: the type of the items, or several.
        made_by: what an item is, for the message.
        **values: by name.

    Raises:
        TypeError: one is no sequence, or holds something else.

    >>> require_items(int, "an integer", sizes=(3, 4))
    """
    for name, value in values.items():
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
            raise TypeError(f"{name}={_shown(value)} must be a sequence, each {made_by}")
        for item in value:
            if not isinstance(item, wanted) or (isinstance(item, bool) and wanted is not bool):
                raise TypeError(f"{name} holds {_shown(item)}, and each must be {made_by}")


_KINDS = {"float": jnp.floating, "int": jnp.integer, "bool": jnp.bool_, "any": np.generic}


def require_arrays(**given: tuple[Any, str]) -> None:
    """Demand that arguments are arrays of a kind, and that their shapes fit each other.

    Args:
        **given: by name: the value, and the kind (``float``, ``int``, ``bool`` or ``any``) with a
            letter for each axis. Axes of the same letter have the same size.

    Raises:
        TypeError: one is no array, or of another kind.
        ValueError: one has another number of axes, or a size that does not fit the others.

    >>> rewards, valid = jnp.zeros((2, 8)), jnp.ones((2, 8), bool)
    >>> require_arrays(rewards=(rewards, "float B G"), valid=(valid, "bool B G"))
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (value, form) in given.items():
        kind, *axes = form.split()
        wanted = f"must be {kind}[{', '.join(axes)}]"
        if not isinstance(value, jax.Array | np.ndarray):
            raise TypeError(f"{name}={_shown(value)} {wanted}: make it an array")
        got = f"got {value.dtype}{list(value.shape)}"
        if not jnp.issubdtype(value.dtype, _KINDS[kind]):
            raise TypeError(f"{name} {wanted}, {got}: cast it")
        if value.ndim != len(axes):
            raise ValueError(f"{name} {wanted}, {got}: reshape it")
        for axis, size in zip(axes, value.shape, strict=True):
            first, of = sizes.setdefault(axis, (size, name))
            if size != first:
                raise ValueError(f"{name} {wanted}, {got}: {axis} is {first} in {of}")


def require_float_type(**values) -> None:
    """Demand that arguments are floating-point types.

    Args:
        **values: by name.

    Raises:
        TypeError: one is something else.
    """
    for name, value in values.items():
        try:
            fits = jnp.issubdtype(jnp.dtype(value), jnp.floating)
        except TypeError:
            fits = False
        if not fits:
            raise TypeError(f"{name}={_shown(value)} must be a float type, such as jnp.bfloat16")


def _is_real(dtype) -> bool:
    real = jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)
    return real or jnp.issubdtype(dtype, jnp.bool_)


def as_floats(name: str, value, axes: int | None = None) -> np.ndarray:
    """Return numbers as float64; NaN and infinity are fine.

    Args:
        name: the argument's name, for the message.
        value: a number, or an array or sequence of them.
        axes: how many axes it must have, if that matters.

    Raises:
        TypeError: if it does not hold numbers.
        ValueError: if it has another number of axes.
    """
    array = _as_array(name, value)
    if not (_is_real(array.dtype) or array.size == 0):
        raise TypeError(f"{name}={_shown(value)} must be numbers")
    if axes is not None and array.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, got shape {array.shape}: reshape it")
    return array.astype(np.float64)


def _as_array(name: str, value) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name}={_shown(value)} must be numbers: {error}") from None


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
