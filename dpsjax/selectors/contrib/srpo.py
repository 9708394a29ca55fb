"""SRPO's history resampling (arXiv 2504.14286): prompts that were all right leave for an epoch."""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import clear_of
from dpsjax.selectors.base import Evidence, Proposal, Selector, chain, over_shards
from dpsjax.selectors.entry import Entry
from dpsjax.types import Array, Bool, Int, Key

# Defaults of the recipe and of its parts.
EXCLUDE = "next_epoch"

Exclusion = Literal["next_epoch", "this_epoch", "forever"]


class EpochState(NamedTuple):
    """State of :func:`skip_solved`."""

    visited: Int[Array, "N"]  # epoch of the last visit; 0: never
    solved: Int[Array, "N"]  # epoch in which the last group all passed; 0: it did not
    epoch: Int[Array, ""]  # from 1
    step: Int[Array, ""]  # finished steps of this epoch


def _anywhere(mask: Bool[Array, "N"], axis_name: str | None) -> Bool[Array, ""]:
    return over_shards(jnp.any(mask).astype(jnp.int32), axis_name) > 0


def skip_solved(
    exclude: Exclusion = EXCLUDE, epoch_steps: int | None = None, strict: bool = False
) -> Selector:
    """Go through the pool in epochs and leave out prompts whose whole group passed (SRPO).

    Within an epoch prompts not visited yet come first. What a solved prompt is left out of:

    - ``"next_epoch"``: one epoch, the next. The published rule, each epoch judged by itself: a
      prompt that is left out shows nothing new, so it returns in the epoch after.
    - ``"forever"``: the reading in which the exclusions add up.
    - ``"this_epoch"``: the rest of the epoch in which it was solved (DPS's baseline); it matters
      if an epoch is longer than one pass over the pool.

    If exclusion leaves no prompt at all, all come back.

    Args:
        exclude: one of the three.
        epoch_steps: steps in an epoch; if not given, an epoch ends when every prompt that is not
            left out was visited in it.
        strict: whether a batch is padded if too few prompts are left, or else filled with those
            left out.

    Returns:
        a part.

    Raises:
        TypeError: ``epoch_steps`` is no integer.
        ValueError: for another ``exclude``, or ``epoch_steps`` below 1.
    """
    checks.require_choice(get_args(Exclusion), exclude=exclude)
    checks.require_counts(**checks.given(epoch_steps=epoch_steps))

    def init(num_prompts: int, data=None) -> EpochState:
        never = jnp.zeros(num_prompts, jnp.int32)
        return EpochState(never, never, jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32))

    def allowed(state: EpochState, epoch):
        if exclude == "next_epoch":
            return (state.solved == 0) | (state.solved != epoch - 1)
        if exclude == "this_epoch":
            return state.solved != epoch
        return (state.solved == 0) | (state.solved == epoch)

    def propose(key: Key, proposal: Proposal, state: EpochState):
        if epoch_steps is None:
            open_now = proposal.eligible & allowed(state, state.epoch)
            over = ~_anywhere(open_now & (state.visited != state.epoch), proposal.axis_name)
        else:
            over = state.step >= epoch_steps
        over = over & (state.step > 0)  # an epoch has at least one step
        epoch = state.epoch + over.astype(jnp.int32)
        open_now = allowed(state, epoch)
        none_left = ~_anywhere(proposal.eligible & open_now, proposal.axis_name)
        new = state._replace(epoch=epoch, step=jnp.where(over, 0, state.step))
        proposal = proposal.first(state.visited != epoch)
        return proposal.bar(~(open_now | none_left), strict), new

    def observe(evidence: Evidence, state: EpochState):
        index = clear_of(evidence.index, evidence.trials)
        target = rows.scatter_index(index, state.visited.shape[0])
        solved = jnp.where(evidence.passes == evidence.trials, state.epoch, 0)
        return evidence, state._replace(
            visited=state.visited.at[target].set(state.epoch, mode="drop"),
            solved=state.solved.at[target].set(solved, mode="drop"),
        )

    def advance(state: EpochState) -> EpochState:
        return state._replace(step=state.step + 1)

    return Selector(init, propose, observe, advance)


def history_resampling(
    exclude: Exclusion = EXCLUDE, epoch_steps: int | None = None, strict: bool = False
) -> Selector:
    """History resampling (SRPO, arXiv 2504.14286): leave out prompts that all passed.

    Prompts that all failed stay in.

    Departures: the publications allow several readings of how long a prompt is left out; see
    :func:`skip_solved`. DPS's baseline is "this_epoch"; its released code has none.

    Args:
        exclude: "next_epoch" (one epoch only), "forever" (adding up) or "this_epoch".
        epoch_steps: steps in an epoch; one pass over what is left if not given.
        strict: whether a batch is padded if too few prompts are left, or else filled with those
            left out.

    Returns:
        the selector.
    """
    return chain(skip_solved(exclude, epoch_steps, strict))


ENTRIES = (
    Entry(
        history_resampling,
        "2504.14286",
        variants={"history-resampling-forever": {"exclude": "forever"}},
    ),
)
