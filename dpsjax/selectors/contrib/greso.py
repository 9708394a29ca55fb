"""GRESO (arXiv 2506.02177): skip prompts whose groups kept agreeing, then dynamic sampling."""

from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import clear_of, ordered
from dpsjax.belief.noise import hash_uniform, hash_words
from dpsjax.selectors.base import Evidence, Proposal, Selector, chain, over_shards
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import accept_mixed
from dpsjax.types import Array, Float, Int, Key, UInt

# Defaults of the recipe and of its parts.
START = 0.5
CHANGE = 0.01
TARGET = 0.25


class StreakState(NamedTuple):
    """State of :func:`skip_streaks`."""

    streak: Int[Array, "N"]  # groups in a row that agreed: > 0 all passed, < 0 all failed
    visited: Int[Array, "N"]  # epoch of the last visit; 0: never
    epoch: Int[Array, ""]  # from 1; 0 before the first proposal
    words: UInt[Array, "2"]  # of the epoch: they decide which prompts it skips
    keep: Float[Array, "2"]  # base probabilities of prompts that all passed, all failed
    groups: Int[Array, "3"]  # of this step: that all passed, that all failed, all groups


def skip_streaks(
    start=START,
    change=CHANGE,
    target=TARGET,
    easy_share=1 / 3,
    lowest=0.05,
    highest=0.95,
    floor=0.01,
    strict: bool = False,
) -> Selector:
    """Go through the pool in epochs and skip prompts, the longer their groups agreed the likelier.

    GRESO, arXiv 2506.02177. In an epoch every prompt comes once, in random order, or is skipped: a
    prompt whose last z groups all passed (or all failed) is kept with probability
    ``max(p**z, floor)``. From the second epoch on, p moves by ``change`` a training step, one for
    prompts that passed and one for those that failed, down if their share of the step's groups, of
    all its rounds, reaches its part of ``target``, else up. Constants of the released code. An
    epoch ends when fewer prompts than a batch are left, as with a loader that drops the last batch.

    Departures: whether a prompt is skipped is tossed once an epoch but compared with the p of the
    moment, so that it may come later in its epoch if p rises; if a new epoch keeps fewer prompts
    than a batch, skipped ones fill it unless ``strict``, where the release goes on to the epoch
    after.

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

    Raises:
        TypeError: a setting is no number.
        ValueError: one is outside [0, 1].
    """
    shares = {"start": start, "target": target, "change": change, "easy_share": easy_share}
    checks.require_scalar(0.0, 1.0, **shares, lowest=lowest, highest=highest, floor=floor)

    def init(num_prompts: int, data=None) -> StreakState:
        none = jnp.zeros(num_prompts, jnp.int32)
        return StreakState(
            streak=none,
            visited=none,
            epoch=jnp.zeros((), jnp.int32),
            words=jnp.zeros(2, jnp.uint32),
            keep=jnp.full(2, jnp.asarray(start, jnp.result_type(float))),
            groups=jnp.zeros(3, jnp.int32),
        )

    def propose(key: Key, proposal: Proposal, state: StreakState):
        log_keep = jnp.log(state.keep)
        base = jnp.where(state.streak > 0, log_keep[0], log_keep[1])
        chance = jnp.exp(jnp.abs(state.streak).astype(base.dtype) * base)
        chance = jnp.maximum(chance, jnp.asarray(floor, base.dtype))
        chance = jnp.where(state.streak == 0, 1, chance)

        def coming(words, unvisited):
            return (hash_uniform(words, proposal.ids, base.dtype) < chance) & unvisited

        left = coming(state.words, state.visited != state.epoch)
        number = (left & proposal.eligible).sum(dtype=jnp.int32)
        over = over_shards(number, proposal.axis_name) < proposal.batch_size
        epoch = state.epoch + over.astype(jnp.int32)
        words = jnp.where(over, hash_words(key), state.words)
        come = coming(words, state.visited != epoch)
        return proposal.bar(~come, strict), state._replace(epoch=epoch, words=words)

    def observe(evidence: Evidence, state: StreakState):
        index = clear_of(evidence.index, evidence.trials)
        old = state.streak[rows.gather_index(index)]
        streak = jnp.where(evidence.passes == evidence.trials, jnp.maximum(old, 0) + 1, 0)
        streak = jnp.where(evidence.passes == 0, jnp.minimum(old, 0) - 1, streak)
        here = (evidence.row >= 0) & (evidence.row_trials > 0)
        passed = here & (evidence.row_passes == evidence.row_trials)
        failed = here & (evidence.row_passes == 0)
        groups = jnp.stack([passed, failed, here]).sum(axis=1, dtype=jnp.int32)
        streak, lanes = ordered(streak, (state.streak, state.visited))
        target_row = rows.scatter_index(index, lanes[0].shape[0])
        return evidence, state._replace(
            streak=lanes[0].at[target_row].set(streak, mode="drop"),
            visited=lanes[1].at[target_row].set(state.epoch, mode="drop"),
            groups=state.groups + over_shards(groups, evidence.axis_name),
        )

    def advance(state: StreakState) -> StreakState:
        dtype = state.keep.dtype
        easy = jnp.asarray(easy_share, dtype)
        wanted = jnp.asarray(target, dtype) * jnp.stack([easy, 1 - easy])
        agreed, groups = state.groups[:2].astype(dtype), state.groups[2].astype(dtype)
        step = jnp.asarray(change, dtype) * jnp.where(agreed >= wanted * groups, -1, 1)
        moves = (groups > 0) & (state.epoch > 1)
        bounds = jnp.asarray(lowest, dtype), jnp.asarray(highest, dtype)
        moved = jnp.clip(state.keep + step, *bounds)
        keep = jnp.where(moves, moved, state.keep)
        return state._replace(keep=keep, groups=jnp.zeros_like(state.groups))

    return Selector(init, propose, observe, advance)


def greso(start=START, target=TARGET, change=CHANGE, strict: bool = False) -> Selector:
    """GRESO (arXiv 2506.02177): skip prompts whose groups kept agreeing, then dynamic sampling.

    Streaks, chances and their moves are those of the released code: see :func:`skip_streaks`. The
    loop fills the batch (:func:`fill`).

    Departures: rounds ask for B prompts, not for 1.25 times what is missing; a group all failed if
    no rollout passed, where the code says a mean reward of at most 0.11 (of 8 rollouts the same);
    see :func:`skip_streaks` for two more.

    Args:
        start: base probability of keeping; 0.5 in the released code.
        target: wanted share of groups that agree; 0.25 there.
        change: of the base probabilities in a step; 0.01 there.
        strict: whether a batch is padded if too few prompts are kept, or else filled.

    Returns:
        the selector.
    """
    return chain(skip_streaks(start, change, target, strict=strict), accept_mixed())


ENTRIES = (Entry(greso, "2506.02177", rounds=None),)
