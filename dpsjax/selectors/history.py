"""Parts that keep prompts out for what their past groups showed."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.combinators import unless_short
from dpsjax.selectors.noise import row_uniform
from dpsjax.selectors.protocol import Evidence, Proposal, Selector
from dpsjax.types import Array, Bool, Float, Int, Key

Exclusion = Literal["next_epoch", "this_epoch", "forever"]


class EpochState(NamedTuple):
    """State of :func:`skip_solved`."""

    visited: Int[Array, "N"]  # epoch of the last visit; 0: never
    solved: Int[Array, "N"]  # epoch in which the last group all passed; 0: it did not
    epoch: Int[Array, ""]  # from 1
    step: Int[Array, ""]  # finished steps of this epoch


def _anywhere(mask: Bool[Array, "N"], axis_name: str | None) -> Bool[Array, ""]:
    found = jnp.any(mask)
    if axis_name is None:
        return found
    return jax.lax.psum(found.astype(jnp.int32), axis_name) > 0


def skip_solved(
    exclude: Exclusion = "next_epoch", epoch_steps: int | None = None, strict: bool = True
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
        strict: whether a batch is padded if too few prompts are left, or else filled with others.

    Returns:
        a part to put before the scores.

    Raises:
        ValueError: for another ``exclude``, or ``epoch_steps`` below 1.
    """
    if exclude not in ("next_epoch", "this_epoch", "forever"):
        raise ValueError(f"exclude={exclude!r}: use 'next_epoch', 'this_epoch' or 'forever'")
    if epoch_steps is not None and epoch_steps < 1:
        raise ValueError(f"epoch_steps must be at least 1, got {epoch_steps}")

    def init(num_prompts: int) -> EpochState:
        never = jnp.zeros(num_prompts, jnp.int32)
        return EpochState(never, never, jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32))

    def allowed(state: EpochState, epoch):
        if exclude == "next_epoch":
            return (state.solved == 0) | (state.solved != epoch - 1)
        if exclude == "this_epoch":
            return state.solved != epoch
        return (state.solved == 0) | (state.solved == epoch)

    def propose(key: Key, proposal: Proposal, state: EpochState):
        del key
        open_now = proposal.eligible & allowed(state, state.epoch)
        if epoch_steps is None:
            over = ~_anywhere(open_now & (state.visited != state.epoch), proposal.axis_name)
        else:
            over = state.step >= epoch_steps
        over = over & (state.step > 0)  # an epoch has at least one step
        epoch = state.epoch + over.astype(jnp.int32)
        open_now = allowed(state, epoch)
        none_left = ~_anywhere(proposal.eligible & open_now, proposal.axis_name)
        new = state._replace(epoch=epoch, step=jnp.where(over, 0, state.step))
        seen_now = (state.visited == epoch).astype(proposal.score.dtype)
        proposal = proposal.replace(score=proposal.score - seen_now)
        return unless_short(proposal, open_now | none_left, strict), new

    def observe(evidence: Evidence, state: EpochState):
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        target = rows.scatter_index(index, state.visited.shape[0])
        solved = jnp.where(evidence.passes == evidence.trials, state.epoch, 0)
        return evidence, EpochState(
            visited=state.visited.at[target].set(state.epoch, mode="drop"),
            solved=state.solved.at[target].set(solved, mode="drop"),
            epoch=state.epoch,
            step=state.step + 1,
        )

    return Selector(init, propose, observe)


class StreakState(NamedTuple):
    """State of :func:`skip_streaks`."""

    streak: Int[Array, "N"]  # groups in a row that agreed: > 0 all passed, < 0 all failed
    keep: Float[Array, "2"]  # base probabilities of prompts that all passed, all failed


def skip_streaks(
    start=0.5,
    change=0.01,
    target=0.25,
    easy_share=1 / 3,
    lowest=0.05,
    highest=0.95,
    floor=0.01,
    strict: bool = False,
) -> Selector:
    """Skip prompts at random the longer their groups agreed (GRESO, arXiv 2506.02177).

    A prompt whose last z groups all agreed is kept with probability ``max(p**z, floor)``; p is
    kept apart for groups that passed and groups that failed, and moves by ``change`` a step
    towards a target share of such groups among those rolled out. Constants of the released code.

    Departures: z counts visits that agreed in the same way (a switch from all failed to all
    passed starts anew); if too few prompts are kept, skipped ones fill the batch unless ``strict``.

    Args:
        start: p at first.
        change: of p in a step.
        target: wanted share of groups that agree.
        easy_share: part of it for groups that all passed.
        lowest: bound on p.
        highest: bound on p.
        floor: bound on the probability of keeping a prompt.
        strict: whether a batch is padded if too few prompts are kept.

    Returns:
        a part to put after the scores.
    """
    checks.require_scalar(0.0, 1.0, start=start)
    checks.require_finite(
        start=start,
        change=change,
        target=target,
        easy_share=easy_share,
        lowest=lowest,
        highest=highest,
        floor=floor,
    )

    def init(num_prompts: int) -> StreakState:
        dtype = jnp.result_type(float)
        keep = jnp.full(2, jnp.asarray(start, dtype))
        return StreakState(jnp.zeros(num_prompts, jnp.int32), keep)

    def propose(key: Key, proposal: Proposal, state: StreakState):
        log_keep = jnp.log(state.keep)
        base = jnp.where(state.streak > 0, log_keep[0], log_keep[1])
        chance = jnp.exp(jnp.abs(state.streak).astype(base.dtype) * base)
        chance = jnp.maximum(chance, jnp.asarray(floor, base.dtype))
        kept = row_uniform(key, proposal.ids, base.dtype) < chance
        return unless_short(proposal, kept | (state.streak == 0), strict), state

    def observe(evidence: Evidence, state: StreakState):
        rolled = evidence.valid & (evidence.trials > 0)
        passed = rolled & (evidence.passes == evidence.trials)
        failed = rolled & (evidence.passes == 0)
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        old = state.streak[rows.gather_index(index)]
        streak = jnp.where(passed, jnp.maximum(old, 0) + 1, 0)
        streak = jnp.where(failed, jnp.minimum(old, 0) - 1, streak)
        dtype = state.keep.dtype
        shares = jnp.stack([passed, failed]).sum(axis=1, dtype=jnp.int32).astype(dtype)
        groups = rolled.sum(dtype=jnp.int32).astype(dtype)
        wanted = jnp.asarray(target, dtype) * jnp.asarray([easy_share, 1 - easy_share], dtype)
        step = jnp.asarray(change, dtype) * jnp.where(shares >= wanted * groups, -1, 1)
        bounds = jnp.asarray(lowest, dtype), jnp.asarray(highest, dtype)
        keep = jnp.clip(state.keep + jnp.where(groups > 0, step, 0), *bounds)
        target_row = rows.scatter_index(index, state.streak.shape[0])
        streak, lane = jax.lax.optimization_barrier((streak, state.streak))
        return evidence, StreakState(lane.at[target_row].set(streak, mode="drop"), keep)

    return Selector(init, propose, observe)
