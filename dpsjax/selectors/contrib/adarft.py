"""AdaRFT (arXiv 2504.05520): the prompts nearest a target difficulty that follows success."""

from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.base import Evidence, Proposal, Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import pass_rate
from dpsjax.selectors.pool import column
from dpsjax.types import Array, Float, Key

# Defaults of the recipe and of its parts.
WANTED = 0.5
SENSITIVITY = 2.0
STEP = 50.0


class TargetState(NamedTuple):
    """State of :func:`add_difficulty_target`."""

    difficulty: Float[Array, "N"]
    target: Float[Array, ""]
    seen: Float[Array, "2"]  # of this step: groups and the sum of their pass rates


def add_difficulty_target(
    start=0.0, wanted=WANTED, sensitivity=SENSITIVITY, step=STEP, lowest=0.0, highest=100.0
) -> Selector:
    """Minus the distance from one target difficulty that follows the pass rate (AdaRFT).

    ``T <- clip(T + step tanh(sensitivity (mean pass rate - wanted)), lowest, highest)`` after each
    training step (arXiv 2504.05520), constants of the released code.

    Args:
        start: T at first.
        wanted: beta, the pass rate aimed at.
        sensitivity: alpha.
        step: eta.
        lowest: bound on T.
        highest: bound on T.

    Returns:
        a part whose state is made with the data ``difficulty`` [N], such as 100 (1 - share of
        passes of a reference model).

    Raises:
        TypeError: a setting is no number.
        ValueError: one is out of its range.
    """
    checks.require_scalar(-jnp.inf, jnp.inf, start=start, lowest=lowest, highest=highest)
    checks.require_scalar(0.0, 1.0, wanted=wanted)
    checks.require_scalar(0.0, jnp.inf, sensitivity=sensitivity, step=step)

    def init(num_prompts: int, data=None) -> TargetState:
        dtype = jnp.result_type(float)
        known = column(data, "difficulty", num_prompts, dtype, "add_difficulty_target")
        return TargetState(known, jnp.asarray(start, dtype), jnp.zeros(2, dtype))

    def propose(key: Key, proposal: Proposal, state: TargetState):
        return proposal.add(-jnp.abs(state.difficulty - state.target)), state

    def observe(evidence: Evidence, state: TargetState):
        rolled = evidence.valid & (evidence.trials > 0)
        rate = jnp.where(rolled, pass_rate(evidence), 0).sum()
        seen = jnp.stack([rolled.sum(dtype=jnp.int32).astype(rate.dtype), rate])
        return evidence, state._replace(seen=state.seen + seen)

    def advance(state: TargetState) -> TargetState:
        dtype, groups = state.target.dtype, state.seen[0]
        excess = state.seen[1] / jnp.maximum(groups, 1) - jnp.asarray(wanted, dtype)
        move = jnp.asarray(step, dtype) * jnp.tanh(jnp.asarray(sensitivity, dtype) * excess)
        bounds = jnp.asarray(lowest, dtype), jnp.asarray(highest, dtype)
        target = jnp.clip(state.target + jnp.where(groups > 0, move, 0), *bounds)
        return state._replace(target=target, seen=jnp.zeros_like(state.seen))

    return Selector(init, propose, observe, advance)


def adarft(start=0.0, step=STEP, sensitivity=SENSITIVITY, wanted=WANTED) -> Selector:
    """AdaRFT (arXiv 2504.05520): the prompts nearest a target difficulty that follows success.

    The difficulty of every prompt is data of the state:
    ``adarft().init(n, data={"difficulty": array of [n] in 0..100})``.

    Args:
        start: target at first, of 0 to 100; 0 in the released code.
        step: eta; 50 in the released code.
        sensitivity: alpha; 2 there.
        wanted: beta, pass rate aimed at; 0.5 there.

    Returns:
        the selector.
    """
    return chain(add_difficulty_target(start, wanted, sensitivity, step))


ENTRIES = (Entry(adarft, "2504.05520", needs=("difficulty",)),)
