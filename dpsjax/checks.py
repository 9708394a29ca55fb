"""Input checks that speak: an exception outside ``jit``, a ``checkify`` error inside.

A check on concrete values raises ``ValueError`` at once. On traced values it does nothing, unless
the function was wrapped in :func:`checkify`: then it becomes a ``checkify.check``. It is not
always there because a check is an effect, and JAX dispatches a jitted function with effects by
way of Python, which costs more than a whole step over a thousand prompts.

Checks stand at the doors, where a user's values come in; what is inside trusts them. Each names the
argument: ``TypeError`` for what is of another type, ``ValueError`` for another value or shape.
Values are given by name, ``require_counts(group=8)``.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify as jax_checkify


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
    """
    if is_concrete(condition, *values.values()):
        if not np.all(condition):
            told = {name: np.asarray(value).tolist() for name, value in values.items()}
            raise ValueError(message.format(**told))
        return
    if _checked.value:
        told = {name: jnp.asarray(value) for name, value in values.items()}
        jax_checkify.check(jnp.all(condition), message, debug=False, **told)


def require_finite(**values) -> None:
    """Demand numbers, or arrays of them, without NaN and infinity; traced values pass."""
    for name, value in values.items():
        if not is_concrete(value):
            continue
        array = as_array(name, value)
        if not is_real(array.dtype):
            raise TypeError(f"{name}={value!r} must be a number")
        if not np.all(np.isfinite(array.astype(np.float64))):
            raise ValueError(f"{name}={value!r} must be finite, not NaN or infinite")


def require_range(low: float, high: float, **values) -> None:
    """Demand finite numbers from ``low`` to ``high``, arrays or single ones."""
    require_finite(**values)
    for name, value in values.items():
        there = np if is_concrete(value) else jnp  # what can be read now needs no device
        value = there.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(jnp.result_type(float))
        good = there.isfinite(value) & (value >= low) & (value <= high)
        message = f"{name} must be finite and lie in [{low}, {high}], got {{{name}}}"
        require(good, message, **{name: value})


def require_scalar(low: float, high: float, **values) -> None:
    """Demand single finite numbers from ``low`` to ``high``."""
    require_finite(**values)
    for name, value in values.items():
        if np.ndim(value):
            raise ValueError(f"{name} must be one number, got shape {np.shape(value)}")
    require_range(low, high, **values)


def require_positive(**values) -> None:
    """Demand single finite numbers above 0."""
    require_scalar(0.0, jnp.inf, **values)
    for name, value in values.items():
        positive = (np if is_concrete(value) else jnp).asarray(value) > 0
        require(positive, f"{name} must be positive, got {{{name}}}", **{name: value})


def require_integers(**values) -> None:
    """Demand whole numbers; a float or a boolean is none."""
    _require_numbers("an integer", int | np.integer, values)


def require_real(**values) -> None:
    """Demand numbers, not booleans; NaN and infinity are."""
    _require_numbers("a number", int | float | np.integer | np.floating, values)


def _require_numbers(wanted: str, kinds, values) -> None:
    for name, value in values.items():
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name}={shown(value)} must be {wanted}")


def require_counts(*, least: int = 1, **values) -> None:
    """Demand whole numbers, none below ``least``."""
    require_integers(**values)
    for name, value in values.items():
        require_setting(value >= least, name, value, f"at least {least}")


def require_setting(holds: bool, name: str, value: object, allowed: str) -> None:
    """Demand something else of a setting; ``holds`` is false for NaN, as all comparisons are."""
    if not holds:
        raise ValueError(f"{name}={value!r} must be {allowed}")


def require_type(wanted: type | tuple[type, ...], made_by: str, **values) -> None:
    """Demand a type; ``made_by`` says in the message where such a value comes from.

    >>> require_type(str, "a name such as 'dps'", name="mopps")
    """
    for name, value in values.items():
        if not isinstance(value, wanted):
            raise TypeError(f"{name}={shown(value)} must be {made_by}")


def require_items(wanted: type | tuple[type, ...], made_by: str, **values) -> None:
    """Demand sequences of items of a type; ``made_by`` says what an item is.

    >>> require_items(int, "an integer", sizes=(3, 4))
    """
    for name, value in values.items():
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
            raise TypeError(f"{name}={shown(value)} must be a sequence, each {made_by}")
        for item in value:
            if not isinstance(item, wanted) or (isinstance(item, bool) and wanted is not bool):
                raise TypeError(f"{name} holds {shown(item)}, and each must be {made_by}")


def require_callable(**values) -> None:
    """Demand functions."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name}={shown(value)} must be a function")


def require_choice(choices: Sequence[str], **values) -> None:
    """Demand one of some names."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name}={shown(value)} must be one of {', '.join(choices)}")


def named_values(**values: Sequence[str]) -> dict[str, Any]:
    """What some texts say, ``NAME=JSON`` each.

    Raises:
        TypeError: It is no sequence of texts.
        ValueError: A text is of another form.

    >>> named_values(template=["enable_thinking=false", "effort=3"])
    {'enable_thinking': False, 'effort': 3}
    """
    require_items(str, "like size=3", **values)
    found = {}
    for setting, items in values.items():
        for item in items:
            name, equals, value = item.partition("=")
            try:
                found[name] = json.loads(value)
            except (ValueError, RecursionError):
                equals = ""
            if not (equals and name.isidentifier()):
                fix = 'texts need quotes: name="text"'
                raise ValueError(f"{setting}={item!r} must be NAME=JSON, like size=3; {fix}")
    return found


def require_key(**values) -> None:
    """Demand single random keys, typed or raw."""
    for name, value in values.items():
        typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        raw = isinstance(value, jax.Array | np.ndarray) and value.dtype == np.uint32
        if not (typed and value.shape == ()) and not (raw and value.ndim == 1):
            raise TypeError(f"{name}={shown(value)} must be one key, as of jax.random.key(0)")


_KINDS = {"float": jnp.floating, "int": jnp.integer, "bool": jnp.bool_, "any": np.generic}


def require_arrays(**given: tuple[Any, str]) -> None:
    """Demand that arguments are arrays of a kind, and that their shapes fit each other.

    Args:
        **given: by name: the value, and the kind (``float``, ``int``, ``bool`` or ``any``) with a
            letter for each axis. Axes of the same letter have the same size.

    >>> rewards, valid = jnp.zeros((2, 8)), jnp.ones((2, 8), bool)
    >>> require_arrays(rewards=(rewards, "float B G"), valid=(valid, "bool B G"))
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (value, form) in given.items():
        kind, *axes = form.split()
        wanted = f"must be {kind}[{', '.join(axes)}]"
        if not isinstance(value, jax.Array | np.ndarray):
            raise TypeError(f"{name}={shown(value)} {wanted}: make it an array")
        got = f"got {value.dtype}{list(value.shape)}"
        if not jnp.issubdtype(value.dtype, _KINDS[kind]):
            raise TypeError(f"{name} {wanted}, {got}: cast it")
        if value.ndim != len(axes):
            raise ValueError(f"{name} {wanted}, {got}: reshape it")
        for axis, size in zip(axes, value.shape, strict=True):
            first, of = sizes.setdefault(axis, (size, name))
            if size != first:
                raise ValueError(f"{name} {wanted}, {got}: {axis} is {first} in {of}")


def given(**values) -> dict[str, Any]:
    """Settings that are not None, for the checks of those that may be left out."""
    return {name: value for name, value in values.items() if value is not None}


def is_real(dtype) -> bool:
    """Whether a type is one of real numbers, or of booleans."""
    real = jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)
    return real or jnp.issubdtype(dtype, jnp.bool_)


def as_array(name: str, value) -> np.ndarray:
    """What NumPy can read of a value."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name}={shown(value)} must be numbers: {error}") from None


def shown(value) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
