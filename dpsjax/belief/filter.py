"""The one interface of beliefs about prompts: a filter updates, a view says what is believed.

A :class:`Filter` is four pure functions over a belief, a structure of arrays with a value for each
prompt. ``observe`` takes in what rollouts showed, as often as they arrive; ``advance`` is the
passing of a training step (forgetting, drift, process noise). A :class:`View` answers the same
three questions about any belief: the pass rate, the outcome of a group, and a draw.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.types import Array, Float, Int, Key, PyTree


class View(abc.ABC):
    """What is believed of N prompts in the step to come."""

    @abc.abstractmethod
    def rate(self) -> Float[Array, "N"]:
        """Expected pass rate of a rollout, in [0, 1]."""

    @abc.abstractmethod
    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """Probabilities that none, some or all of ``group`` rollouts pass; columns sum to 1."""

    @abc.abstractmethod
    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """A pass rate drawn from each prompt's belief; the noise depends on key and id alone."""

    def mixed(self, group: int) -> Float[Array, "N"]:
        """Probability that ``group`` rollouts neither all pass nor all fail."""
        return self.outcome(group)[1]


class Filter(NamedTuple):
    """How a belief is kept."""

    init: Callable[[int], PyTree]  # num_prompts -> belief
    # (belief, index int32[B] distinct rows, -1 padding, passes, trials, axis_name) -> belief
    observe: Callable[[Any, Array, Array, Array, str | None], PyTree]
    advance: Callable[[Any], PyTree]
    view: Callable[[Any], View]


def group_outcome(rate: Float[Array, "..."], group: int) -> Float[Array, "3 ..."]:
    """Probabilities that none, some or all of ``group`` independent rollouts pass.

    Args:
        rate: probability of one pass.
        group: G rollouts.

    Returns:
        of the same dtype; they sum to 1.

    >>> group_outcome(jnp.array([0.5], jnp.float32), 2)[:, 0].tolist()
    [0.25, 0.5, 0.25]
    """
    none, every = (1 - rate) ** group, rate**group
    return jnp.stack([none, jnp.maximum(1 - none - every, 0), every])


def averaged(
    to_rate: Callable[[Array], Array], mean: Float[Array, "N"], deviation: Float[Array, "N"]
) -> list[tuple[float, Float[Array, "N"]]]:
    """Weights and rates whose weighted sums are means under a transformed Gaussian.

    Gauss-Hermite quadrature with 32 nodes.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    weights = weights / weights.sum()
    pairs = zip(nodes, weights, strict=True)
    return [(float(weight), to_rate(mean + float(node) * deviation)) for node, weight in pairs]


def weighted(terms: list[tuple[float, Array]]) -> Array:
    """The sum of weight times value."""
    weight, value = terms[0]
    return sum((weight * value for weight, value in terms[1:]), weight * value)


def clear_of(index: Int[Array, "B"], trials: Int[Array, "B"]) -> Int[Array, "B"]:
    """The index without rows in which nothing was rolled out."""
    return jnp.where(trials > 0, index, -1)


def ordered(*values: PyTree) -> tuple:
    """The same, in an order that the compiler keeps: reads before writes.

    A donated belief is then rewritten in place; otherwise the compiler copies the pool.
    """
    return jax.lax.optimization_barrier(values)
