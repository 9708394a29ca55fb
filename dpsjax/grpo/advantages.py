"""From the rewards of one prompt's rollouts to their advantages.

Every function here has the same signature, ``(rewards, valid) -> Advantages``, so a strategy is
chosen by passing the function. Groups whose valid rewards are all equal carry no information
about which answer was better: they get exactly zero and are marked, so the loss can leave them
out of its numerator and of its denominator.

One strategy needs more than the group: :data:`denoised` also takes what is believed of the prompt.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta
from dpsjax.types import Array, Bool, Float


class Advantages(NamedTuple):
    """Advantages of a batch of groups.

    Attributes:
        values: Advantage of each rollout; 0 where invalid or uninformative. float[B, G].
        informative: Whether the group's valid rewards differ. bool[B].
    """

    values: Array
    informative: Array


# (rewards float[B, G], valid bool[B, G]) -> Advantages
AdvantageFunction = Callable[[Array, Array], Advantages]


class BeliefAdvantages(NamedTuple):
    """An estimator that also looks at the Beta belief about each prompt.

    Attributes:
        function: ``(passed float[B, G], valid bool[B, G], a float[B], b float[B]) -> Advantages``;
            the counts ``a`` and ``b`` are those after the group was observed.
    """

    function: Callable[[Array, Array, Array, Array], Advantages]

    def __call__(self, passed: Array, valid: Array, a: Array, b: Array) -> Advantages:
        """Call the function."""
        return self.function(passed, valid, a, b)


def group_normalized(
    rewards: Float[Array, "B G"], valid: Bool[Array, "B G"], *, epsilon: float = 1e-6
) -> Advantages:
    """GRPO: centre each group and divide by its sample standard deviation (``ddof=1``).

    ``A_i = (r_i - mean(r)) / (std(r) + epsilon)``, Shao et al. 2024 (arXiv 2402.03300), section
    4.1.2, with the sample deviation that the released DPS scripts use.

    Args:
        rewards: Reward of each rollout, float[B, G].
        valid: Which rollouts exist, bool[B, G]; the others are ignored whatever they hold.
        epsilon: Added to the standard deviation.

    Returns:
        Advantages in the dtype of ``rewards``.

    Raises:
        TypeError: An argument is no array, or of another kind.
        ValueError: Shapes do not fit, or ``epsilon`` is negative.

    >>> rewards = jnp.array([[1.0, 0.0], [1.0, 1.0]], dtype=jnp.float32)
    >>> result = group_normalized(rewards, jnp.ones((2, 2), dtype=bool))
    >>> [[round(x, 3) for x in row] for row in result.values.tolist()]
    [[0.707, -0.707], [0.0, 0.0]]
    >>> result.informative.tolist()
    [True, False]
    """
    checks.require_scalar(0.0, jnp.inf, epsilon=epsilon)
    deviation, count = _deviations(rewards, valid)
    variance = jnp.sum(deviation**2, axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
    return _masked(deviation / (jnp.sqrt(variance) + epsilon), rewards, valid)


def centered(rewards: Float[Array, "B G"], valid: Bool[Array, "B G"]) -> Advantages:
    """Dr. GRPO: centre each group, no division by the standard deviation.

    ``A_i = r_i - mean(r)``, Liu et al. 2025 (arXiv 2503.20783), section 3.2.

    Args:
        rewards: Reward of each rollout, float[B, G].
        valid: Which rollouts exist, bool[B, G].

    Returns:
        Advantages in the dtype of ``rewards``.

    Raises:
        TypeError: An argument is no array, or of another kind.
        ValueError: Shapes do not fit.
    """
    deviation, _ = _deviations(rewards, valid)
    return _masked(deviation, rewards, valid)


def leave_one_out(rewards: Float[Array, "B G"], valid: Bool[Array, "B G"]) -> Advantages:
    """RLOO: subtract the mean of the *other* rollouts of the group.

    ``A_i = r_i - mean(r without i) = n / (n - 1) (r_i - mean(r))``, Ahmadian et al. 2024
    (arXiv 2402.14740), equation 7.

    Args:
        rewards: Reward of each rollout, float[B, G].
        valid: Which rollouts exist, bool[B, G].

    Returns:
        Advantages in the dtype of ``rewards``.

    Raises:
        TypeError: An argument is no array, or of another kind.
        ValueError: Shapes do not fit.
    """
    deviation, count = _deviations(rewards, valid)
    return _masked(deviation * count / jnp.maximum(count - 1, 1), rewards, valid)


def _denoised(
    passed: Float[Array, "B G"],
    valid: Bool[Array, "B G"],
    a: Float[Array, "B"],
    b: Float[Array, "B"],
) -> Advantages:
    """See :func:`dpsjax.belief.beta.denoised_advantages`; groups of one rollout compare nothing."""
    several = valid.sum(axis=1, dtype=jnp.int32) > 1
    return Advantages(beta.denoised_advantages(passed, valid, a, b), several)


# MaPP's: GRPO's advantage averaged over what the other rollouts might have been. Groups that all
# passed or all failed teach too.
denoised = BeliefAdvantages(_denoised)


def _deviations(rewards: Array, valid: Array) -> tuple[Array, Array]:
    """Reward minus the mean of the valid ones (0 where invalid), and their count [B, 1]."""
    checks.require_arrays(rewards=(rewards, "float B G"), valid=(valid, "bool B G"))
    count = jnp.sum(valid, axis=1, keepdims=True, dtype=rewards.dtype)
    # A `where` before any arithmetic: an invalid reward may be NaN, and 0 * NaN is NaN.
    kept = jnp.where(valid, rewards, 0)
    mean = jnp.sum(kept, axis=1, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(valid, rewards - mean, 0), count


def _masked(values: Array, rewards: Array, valid: Array) -> Advantages:
    """Set uninformative groups to exactly 0.

    Equality of the extremes is used, not ``std > 0``: a group of equal rewards may have a mean
    that differs from them in the last bit.
    """
    lowest = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=1)
    highest = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=1)
    informative = highest > lowest
    return Advantages(jnp.where(valid & informative[:, None], values, 0), informative)
