"""Estimates of the KL divergence to a reference policy, one per token."""

from collections.abc import Callable

import jax.numpy as jnp

from dpsjax.types import Array, Float

# exp(20) is about 5e8: far beyond any clip, and still finite in float32.
MAX_LOG_RATIO = 20.0

# (log_probs float[S, T], reference float[S, T]) -> float[S, T]
KLEstimator = Callable[[Array, Array], Array]


def k1(log_probs: Float[Array, "S T"], reference: Float[Array, "S T"]) -> Float[Array, "S T"]:
    """``log pi - log ref``: unbiased as a value, can be negative.

    Its gradient as a loss is the score function, zero in expectation on fresh samples; as a
    penalty prefer :func:`k3`. Source: Schulman 2020, "Approximating KL divergence".

    Args:
        log_probs: Of the policy, float[S, T].
        reference: Of the reference policy, float[S, T].

    Returns:
        One estimate per token, float[S, T].
    """
    return log_probs - reference


def k3(log_probs: Float[Array, "S T"], reference: Float[Array, "S T"]) -> Float[Array, "S T"]:
    """``ref / pi - log(ref / pi) - 1``: unbiased, never negative, low variance (GRPO, eq. 4).

    Args:
        log_probs: Of the policy, float[S, T].
        reference: Of the reference policy, float[S, T].

    Returns:
        One estimate per token, float[S, T].
    """
    difference = jnp.clip(reference - log_probs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return jnp.expm1(difference) - difference
