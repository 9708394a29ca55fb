"""Hyperparameters of :mod:`dpsjax.belief.hmm`, and the doors where they come in."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.types import Array, Float

DECAY = 0.5  # the paper's on Countdown and Geometry3k


class Params(NamedTuple):
    """Hyperparameters: a pytree of arrays, so that a sweep is a ``vmap``."""

    alpha: Float[Array, "K K"]  # prior counts; column j holds the moves from state j
    pi: Float[Array, "K"]  # belief about a prompt before the first step
    decay: Float[Array, ""]  # lambda: 1 never forgets, 0 forgets at once


def prior_counts(name: str, num_states: int) -> np.ndarray:
    """The named prior counts of the released code, for any number of states.

    ``"uniform"`` is 1 everywhere; ``"progress"`` halves moves to lower states; ``"stability"``
    halves all moves; ``"local"`` forbids moves by more than one state.

    Args:
        name: one of the four.
        num_states: K.

    Returns:
        float64[K, K], column j = from state j.

    Raises:
        TypeError: if ``num_states`` is no integer.
        ValueError: for another name, or fewer than 2 states.
    """
    checks.require_counts(least=2, num_states=num_states)
    to, source = np.indices((num_states, num_states))
    if name == "uniform":
        return np.ones((num_states, num_states))
    if name == "progress":
        return np.where(to >= source, 1.0, 0.5)
    if name == "stability":
        return np.where(to == source, 1.0, 0.5)
    if name == "local":
        return np.where(abs(to - source) <= 1, 1.0, 0.0)
    raise ValueError(
        f"prior_alpha={name!r} is not known: use 'uniform', 'progress', 'stability', 'local', "
        "a number, or a [K, K] array"
    )


def params(num_states: int = 3, decay=DECAY, prior_alpha=1.0, prior_pi=None) -> Params:
    """Build the hyperparameters.

    Args:
        num_states: K, at least 2. Ignored if ``prior_alpha`` is a matrix.
        decay: lambda in [0, 1]; may be traced. The paper uses 0.5 and 0.7.
        prior_alpha: a number (every count), a name (see :func:`prior_counts`), or [K, K] with
            column j = from state j; zero entries forbid a move.
        prior_pi: [K] belief before the first step, uniform if not given.

    Returns:
        the parameters, in the default float type.

    Raises:
        ValueError: for a decay outside [0, 1], a negative, infinite or all-zero column of counts,
            or a belief that is not a probability vector.
    """
    dtype = jnp.result_type(float)
    checks.require_counts(least=2, num_states=num_states)
    if isinstance(prior_alpha, str):
        prior_alpha = prior_counts(prior_alpha, num_states)
    checks.require_finite(decay=decay, prior_alpha=prior_alpha, **checks.given(prior_pi=prior_pi))
    alpha = jnp.asarray(prior_alpha, dtype)
    if alpha.ndim == 0:
        alpha = jnp.broadcast_to(alpha, (num_states, num_states))
    if alpha.ndim != 2 or alpha.shape[0] != alpha.shape[1] or alpha.shape[0] < 2:
        raise ValueError(
            f"prior_alpha must be a number, a name or [K, K] with K >= 2, got shape {alpha.shape}"
        )
    num_states = alpha.shape[0]
    pi = jnp.full(num_states, 1 / num_states, dtype) if prior_pi is None else prior_pi
    pi = jnp.asarray(pi, dtype)
    if pi.shape != (num_states,):
        raise ValueError(f"prior_pi must have shape ({num_states},), got {pi.shape}")
    checks.require_scalar(0.0, 1.0, decay=decay)
    decay = jnp.asarray(decay, dtype)
    checks.require(
        jnp.isfinite(alpha) & (alpha >= 0),
        "prior_alpha must be finite and not negative, got {alpha}",
        alpha=alpha,
    )
    checks.require(
        alpha.sum(0) > 0,
        "every column of prior_alpha needs a positive entry; column sums are {sums}",
        sums=alpha.sum(0),
    )
    checks.require(
        (pi >= 0) & (jnp.abs(pi.sum() - 1) < 1e-5),
        "prior_pi must be a probability vector, got {pi}",
        pi=pi,
    )
    return Params(alpha, pi, decay)


def require_float_type(counts_dtype) -> None:
    """Demand a floating-point type."""
    try:
        fits = jnp.issubdtype(jnp.dtype(counts_dtype), jnp.floating)
    except TypeError:
        fits = False
    if not fits:
        raise TypeError(f"counts_dtype={counts_dtype!r} must be a float type, as jnp.bfloat16 is")
