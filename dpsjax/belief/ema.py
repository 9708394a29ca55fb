"""Exponential moving averages of a number that each visit reveals, one per prompt.

``value <- decay value + (1 - decay) seen`` at each visit; the first visit sets ``value = seen``
unless the average is to start from ``start``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.types import Array, Float, Int


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


def update(
    decay,
    belief: Belief,
    index: Int[Array, "B"],
    seen: Float[Array, "B"],
    *,
    first_visit_sets: bool = True,
) -> Belief:
    """One step.

    Args:
        decay: weight of the past, in [0, 1]; may be traced.
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        seen: what each visit showed.
        first_visit_sets: whether the first visit overwrites the start value.

    Returns:
        the belief after the step.
    """
    source = rows.gather_index(index)
    target = rows.scatter_index(index, belief.visits.shape[0])
    old, visits = belief.value[source], belief.visits[source]
    decay = jnp.asarray(decay, old.dtype)
    seen = seen.astype(old.dtype)
    moved = decay * old + (1 - decay) * seen
    new = jnp.where(visits == 0, seen, moved) if first_visit_sets else moved
    change = jnp.where(visits == 0, jnp.zeros_like(new), new - old)
    # Reads before writes, so that a donated belief is rewritten in place.
    new, change, visits, belief = jax.lax.optimization_barrier((new, change, visits, belief))
    return Belief(
        value=belief.value.at[target].set(new, mode="drop"),
        change=belief.change.at[target].set(change, mode="drop"),
        visits=belief.visits.at[target].set(visits + 1, mode="drop"),
    )


def progress_weight(change: Float[Array, "..."], slope=8.0, base=0.5) -> Float[Array, "..."]:
    """LPPO's loss weight ``sigmoid(slope change) + base`` (arXiv 2507.06573), 1 at no change.

    The constants are those of a third party's implementation that quotes the paper.

    >>> float(progress_weight(jnp.float32(0)))
    1.0
    """
    return jax.nn.sigmoid(jnp.asarray(slope, change.dtype) * change) + jnp.asarray(
        base, change.dtype
    )
