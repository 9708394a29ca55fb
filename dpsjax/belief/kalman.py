"""Gaussian beliefs about a transformed solve probability, filtered with a scalar Kalman filter.

Two transforms: the logit (KGPS, arXiv 2607.27610) and the arc length ``psi = arcsin sqrt(p)``
(ARCUS, arXiv 2609.38018), in which counts have nearly constant noise. Between visits the variance
grows by the process noise of each step; the sum of that noise is kept once for the whole pool, so
an unseen prompt's variance follows in closed form and a step writes the observed rows alone.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import noise, rows
from dpsjax.belief.filter import View, averaged, group_outcome, ordered, weighted
from dpsjax.types import Array, Float, Int, Key


class Belief(NamedTuple):
    """What is believed of N prompts. Donate it to a jitted update: it is updated in place."""

    mean: Float[Array, "N"]
    spread: Float[Array, "N"]  # variance minus the process noise that had then been summed
    noise: Float[Array, ""]  # process noise summed over the finished steps
    step: Int[Array, ""]


def init(mean, variance, num_prompts: int) -> Belief:
    """Every prompt at N(mean, variance), in the default float type."""
    checks.require_scalar(-jnp.inf, jnp.inf, mean=mean)
    checks.require_scalar(0.0, jnp.inf, variance=variance)
    checks.require_counts(num_prompts=num_prompts)
    dtype = jnp.result_type(float)
    return Belief(
        mean=jnp.full(num_prompts, jnp.asarray(mean, dtype)),
        spread=jnp.full(num_prompts, jnp.asarray(variance, dtype)),
        noise=jnp.zeros((), dtype),
        step=jnp.zeros((), jnp.int32),
    )


def variance(belief: Belief) -> Float[Array, "N"]:
    """Variances now; never negative, whatever the rounding of the sums."""
    return jnp.maximum(belief.spread + belief.noise, 0)


def measure_logit(
    passes: Int[Array, "B"], trials: Int[Array, "B"], dtype
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Empirical logit of a group and its variance (Haldane-Anscombe: half a count on each side).

    ``z = log((m + 1/2) / (n - m + 1/2))``, ``R = 1/(m + 1/2) + 1/(n - m + 1/2)``.
    """
    passed = passes.astype(dtype) + 0.5
    failed = (trials - passes).astype(dtype) + 0.5
    return jnp.log(passed) - jnp.log(failed), 1 / passed + 1 / failed


def measure_arc(
    passes: Int[Array, "B"], trials: Int[Array, "B"], dtype
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Arc length of a group and its variance (ARCUS, its observation model).

    Mixed groups: ``z = arcsin sqrt((m + 3/8)/(n + 3/4))``, ``R = 1/(4n + 2)``; groups that agree:
    ``z = 0`` or ``pi/2``, ``R = 1/(2n)``.
    """
    count = jnp.maximum(trials, 1).astype(dtype)
    passed = passes.astype(dtype)
    none, every = passes == 0, passes >= trials
    arc = jnp.arcsin(jnp.sqrt((passed + 0.375) / (count + 0.75)))
    arc = jnp.where(none, jnp.zeros_like(arc), jnp.where(every, jnp.full_like(arc, np.pi / 2), arc))
    return arc, jnp.where(none | every, 1 / (2 * count), 1 / (4 * count + 2))


def observe(
    belief: Belief,
    index: Int[Array, "B"],
    measured: Float[Array, "B"],
    error: Float[Array, "B"],
) -> Belief:
    """Correct the rows that were measured.

    Args:
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        measured: a noisy measurement of each row's mean.
        error: its variance.

    Returns:
        the belief.
    """
    source = rows.gather_index(index)
    target = rows.scatter_index(index, belief.mean.shape[0])
    mean = belief.mean[source]
    known = jnp.maximum(belief.spread[source] + belief.noise, 0)
    gain = known / (known + error)
    mean = mean + gain * (measured - mean)
    spread = (1 - gain) * known - belief.noise
    mean, spread, belief = ordered(mean, spread, belief)
    return belief._replace(
        mean=belief.mean.at[target].set(mean, mode="drop"),
        spread=belief.spread.at[target].set(spread, mode="drop"),
    )


def advance(belief: Belief, process_noise) -> Belief:
    """The passing of a step: every variance grows by ``process_noise``, which may be traced."""
    noise = belief.noise + jnp.asarray(process_noise, belief.noise.dtype)
    return belief._replace(noise=noise, step=belief.step + 1)


@dataclasses.dataclass(frozen=True)
class GaussianView(View):
    """What a Gaussian belief about a transformed rate says."""

    mean: Float[Array, "N"]
    variance: Float[Array, "N"]
    to_rate: Callable[[Array], Array]  # back to the rate

    def rate(self) -> Float[Array, "N"]:
        """The expected rate, by quadrature."""
        return weighted(self._terms())

    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """The expected outcome, by quadrature."""
        return weighted([(weight, group_outcome(rate, group)) for weight, rate in self._terms()])

    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """The rate at a normal number."""
        normal = noise.row_normal(key, ids, self.mean.dtype)
        return self.to_rate(self.mean + jnp.sqrt(self.variance) * normal)

    def _terms(self):
        return averaged(self.to_rate, self.mean, jnp.sqrt(self.variance))


def rate_of_arc(arc: Float[Array, "..."]) -> Float[Array, "..."]:
    """``sin(arc)^2``, arcs outside [0, pi/2] taken as the nearer end."""
    return jnp.square(jnp.sin(jnp.clip(arc, 0, np.pi / 2)))


def expected_variance_of_rollout(
    mean: Float[Array, "..."], variance: Float[Array, "..."], points: int = 5
) -> Float[Array, "..."]:
    """E[p (1 - p)] for ``logit p ~ N(mean, variance)``, by Gauss-Hermite quadrature.

    The integrand is even, and nodes are taken in pairs, so that mean and -mean tie exactly.

    Args:
        mean: of the logit.
        variance: of the logit, not negative.
        points: odd number of nodes; 5 in ARCUS's description of KGPS.

    Returns:
        values in [0, 1/4].
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    deviation = jnp.sqrt(variance)

    def spread(logit):
        odds = jnp.exp(-jnp.abs(logit))
        return odds / ((1 + odds) * (1 + odds))

    value = float(weights[points // 2]) * spread(mean)
    for node, weight in zip(nodes[points // 2 + 1 :], weights[points // 2 + 1 :], strict=True):
        shift = float(node) * deviation
        value = value + float(weight) * (spread(mean + shift) + spread(mean - shift))
    return value
