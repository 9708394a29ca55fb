"""Exponential moving averages of a number that each visit reveals, one per prompt.

``value <- decay value + (1 - decay) seen`` at each visit; the first visit sets ``value = seen``
unless the average is to start from ``start``.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import View, group_outcome, ordered
from dpsjax.types import Array, Float, Int, Key


class Belief(NamedTuple):
    """Averages of N prompts. Donate it to a jitted update: it is updated in place."""

    value: Float[Array, "N"]
    change: Float[Array, "N"]  # of the value at the last visit; 0 at the first one
    visits: Int[Array, "N"]


def init(start, num_prompts: int) -> Belief:
    """Nothing seen yet; ``start`` is what is believed of such prompts."""
    checks.require_scalar(-jnp.inf, jnp.inf, start=start)
    checks.require_counts(num_prompts=num_prompts)
    value = jnp.full(num_prompts, jnp.asarray(start, jnp.result_type(float)))
    return Belief(value, jnp.zeros_like(value), jnp.zeros(num_prompts, jnp.int32))


def observe(
    decay,
    belief: Belief,
    index: Int[Array, "B"],
    seen: Float[Array, "B"],
    *,
    first_visit_sets: bool = True,
) -> Belief:
    """What visits showed; each call is a visit of its rows.

    Args:
        decay: weight of the past, in [0, 1]; may be traced.
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        seen: what each visit showed.
        first_visit_sets: whether the first visit overwrites the start value.

    Returns:
        the belief.
    """
    source = rows.gather_index(index)
    target = rows.scatter_index(index, belief.visits.shape[0])
    old, visits = belief.value[source], belief.visits[source]
    decay = jnp.asarray(decay, old.dtype)
    seen = seen.astype(old.dtype)
    moved = decay * old + (1 - decay) * seen
    new = jnp.where(visits == 0, seen, moved) if first_visit_sets else moved
    change = jnp.where(visits == 0, jnp.zeros_like(new), new - old)
    new, change, visits, belief = ordered(new, change, visits, belief)
    return Belief(
        value=belief.value.at[target].set(new, mode="drop"),
        change=belief.change.at[target].set(change, mode="drop"),
        visits=belief.visits.at[target].set(visits + 1, mode="drop"),
    )


@dataclasses.dataclass(frozen=True)
class RateView(View):
    """An averaged pass rate, taken at face value."""

    value: Float[Array, "N"]

    def rate(self) -> Float[Array, "N"]:
        """The average."""
        return jnp.clip(self.value, 0, 1)

    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """Of rollouts at that rate."""
        return group_outcome(self.rate(), group)

    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """The average itself: nothing is known of its error."""
        del key, ids
        return self.rate()
