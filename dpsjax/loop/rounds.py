"""A round of rollouts: its prompts, its scored groups, and what is learned from them."""

from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import selectors
from dpsjax.belief import hmm
from dpsjax.grpo.advantages import (
    AdvantageFunction,
    Advantages,
    BeliefAdvantages,
    group_normalized,
)
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.loop.state import TrainState
from dpsjax.loop.watched import propose_all
from dpsjax.policy import Rollouts
from dpsjax.selectors import BetaBelief, Selector
from dpsjax.types import Array, PyTree


class Slots(NamedTuple):
    """Which rollout belongs to which prompt, where prompts get unequal numbers of them.

    The rollouts are rows of one each; a prompt's are consecutive.

    Attributes:
        index: Prompt ids, -1 is padding. int32[B].
        row: Where a prompt's rollouts are, S for those not made. int32[B, H].
        slot: Whose rollout a row is, B for padding. int32[S].
        place: Which of the prompt's. int32[S].
    """

    index: Array
    row: Array
    slot: Array
    place: Array


class Draw(NamedTuple):
    """The prompts of a step, R rows: the batch, padded to a multiple of the devices.

    Attributes:
        index: Prompt ids, -1 is padding. int32[R].
        weight: Loss weights. float32[R].
        prompt: int32[R, P].
        prompt_mask: bool[R, P].
        predicted: Probability of each solve state before the rollouts, of each prompt.
            float32[K, R], or float32[K, B] with slots.
        occupancy: Mean of that probability over the whole pool. float32[K].
        slots: Given where each row is one rollout; see :mod:`dpsjax.loop.allocation`.
    """

    index: Array
    weight: Array
    prompt: Array
    prompt_mask: Array
    predicted: Array
    occupancy: Array
    slots: Slots | None = None


class Groups(NamedTuple):
    """Scored rollouts of the prompts of a step.

    Attributes:
        rollouts: The responses.
        rewards: float32[R, G].
        correct: bool[R, G].
        valid: Rollouts that were scored; the others do not count. bool[R, G].
    """

    rollouts: Rollouts
    rewards: Array
    correct: Array
    valid: Array


class Seen(NamedTuple):
    """What a round showed of each of its prompts, H rollouts or fewer.

    Attributes:
        index: int32[R].
        rewards: float32[R, H].
        correct: bool[R, H].
        counted: Rollouts that were made and scored. bool[R, H].
        entropy: Estimated mean token entropy, NaN where it does not count. float32[R, H].
        tokens: Generated, 0 where it does not count. int32[R, H].
        asked: Rollouts made. int32[R].
    """

    index: Array
    rewards: Array
    correct: Array
    counted: Array
    entropy: Array
    tokens: Array
    asked: Array


class RoundReport(NamedTuple):
    """What a round of rollouts showed, replicated on all devices; most steps have one round.

    Attributes:
        index: int32[R].
        asked: Rollouts made. int32[R].
        passes: Correct rollouts. int32[R].
        trials: Valid rollouts. int32[R].
        accept: Whether the selector lets the loss see the group. bool[R].
        observed: Solve state, -1 where nothing was seen. int32[R].
        length: Mean tokens of a valid response. float32[R].
        predicted: Draw.predicted.
        occupancy: Draw.occupancy.
        reward: Mean over the valid rollouts. float32[].
        tokens: Generated tokens. int32[].
        covered: Distinct prompts visited so far. int32[].
        waiting: Accepted groups that wait for an update, see :mod:`dpsjax.loop.refill`. int32[].
    """

    index: Array
    asked: Array
    passes: Array
    trials: Array
    accept: Array
    observed: Array
    length: Array
    predicted: Array
    occupancy: Array
    reward: Array
    tokens: Array
    covered: Array
    waiting: Array


def learn_from_round(
    selector: Selector,
    state: TrainState,
    draw: Draw,
    groups: Groups,
    *,
    advantages: AdvantageFunction | BeliefAdvantages = group_normalized,
    keep: int | None = None,
) -> tuple[TrainState, RolloutBatch, RoundReport]:
    """Let the belief and the counters learn from a round of rollouts; the policy comes later.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        state: before.
        draw: the prompts.
        groups: their scored rollouts.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: Rollouts of each group that the loss may see (:func:`max_variance_subset`).

    Returns:
        ``(state, batch, report)``; the batch is what a policy update consumes.
    """
    seen = what_was_seen(draw, groups)
    accept, belief = selectors.observe(
        selector,
        state.selector,
        seen.index,
        (seen.correct & seen.counted).sum(axis=1, dtype=jnp.int32),
        seen.counted.sum(axis=1, dtype=jnp.int32),
        rewards=seen.correct.astype(jnp.float32),
        entropies=seen.entropy,
    )
    kept = seen.counted
    if keep is not None:
        # A mask: shapes stay those of the whole group, and so does the cost of the update.
        kept &= selectors.max_variance_subset(seen.rewards, keep)
    if isinstance(advantages, BeliefAdvantages):
        found = _believed_advantages(advantages, selector, belief, seen, kept)
    else:
        found = advantages(seen.rewards, kept)
    late = selectors.late_weights(selector, belief, seen.index)
    batch = loss_batch(draw, groups, kept, accept, found, late)
    new = state._replace(
        selector=belief,
        position=state.position + (seen.index >= 0).sum(dtype=jnp.int32),
        rollouts=state.rollouts + seen.asked.sum(dtype=jnp.int32),
        visits=_count_visits(state.visits, jnp.where(seen.asked > 0, seen.index, -1)),
    )
    return new, batch, report_of(seen, draw, new)._replace(accept=accept)


def what_was_seen(draw: Draw, groups: Groups) -> Seen:
    """Scored rollouts by prompt; rollouts that were not made are rows' ends that do not count."""
    counted = groups.valid & (draw.index >= 0)[:, None]
    generated = groups.rollouts.mask & counted[:, :, None]
    size = groups.valid.shape[1]
    seen = Seen(
        index=draw.index,
        rewards=groups.rewards,
        correct=groups.correct,
        counted=counted,
        entropy=_mean_entropy(groups.rollouts, counted),
        tokens=generated.sum(axis=2, dtype=jnp.int32),
        asked=jnp.where(draw.index >= 0, size, 0).astype(jnp.int32),
    )
    return seen if draw.slots is None else _by_slot(seen, draw.slots)


def _by_slot(seen: Seen, slots: Slots) -> Seen:
    """Rows of one rollout each, put beside the others of their prompt."""

    def table(rows: Array, empty: float = 0.0) -> Array:
        return rows[:, 0].at[slots.row].get(mode="fill", fill_value=empty)

    return Seen(
        index=slots.index,
        rewards=table(seen.rewards),
        correct=table(seen.correct),
        counted=table(seen.counted),
        entropy=table(seen.entropy, jnp.nan),
        tokens=table(seen.tokens),
        asked=(slots.row < seen.index.shape[0]).sum(axis=1, dtype=jnp.int32),
    )


def report_of(seen: Seen, draw: Draw, state: TrainState) -> RoundReport:
    """The report of a round, from what was seen and the state after it."""
    passes = (seen.correct & seen.counted).sum(axis=1, dtype=jnp.int32)
    trials = seen.counted.sum(axis=1, dtype=jnp.int32)
    tokens = seen.tokens.sum(axis=1, dtype=jnp.int32)
    total = jnp.maximum(trials.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    return RoundReport(
        index=seen.index,
        asked=seen.asked,
        passes=passes,
        trials=trials,
        accept=jnp.zeros_like(seen.index, bool),
        observed=hmm.solve_state(passes, trials, draw.predicted.shape[0]),
        length=tokens.astype(jnp.float32) / jnp.maximum(trials, 1).astype(jnp.float32),
        predicted=draw.predicted,
        occupancy=draw.occupancy,
        reward=jnp.where(seen.counted, seen.rewards, 0).sum() / total,
        tokens=tokens.sum(dtype=jnp.int32),
        covered=(state.visits > 0).sum(dtype=jnp.int32),
        waiting=jnp.zeros((), jnp.int32),
    )


def _believed_advantages(
    advantages: BeliefAdvantages, selector: Selector, belief: PyTree, seen: Seen, kept: Array
) -> Advantages:
    """Advantages from the Beta belief that has seen these groups."""
    rows = jnp.maximum(seen.index, 0)
    wanted = propose_all(selector, belief).belief(BetaBelief, "the advantages", "track_beta")
    a, b = wanted.a[rows], wanted.b[rows]
    passed = seen.correct.astype(seen.rewards.dtype)
    return advantages.function(passed, kept, a.astype(passed.dtype), b.astype(passed.dtype))


def loss_batch(
    draw: Draw,
    groups: Groups,
    kept: Array,
    accept: Array,
    advantages: Advantages,
    late: Array,
) -> RolloutBatch:
    """What the policy update consumes.

    Args:
        draw: the prompts.
        groups: their rollouts, rows as in the draw.
        kept: Rollouts that the loss may see, by prompt. bool[R, H].
        accept: Whether the selector lets the loss see a prompt. bool[R].
        advantages: by prompt.
        late: Loss weight beside that of the draw. float32[R].

    Returns:
        the batch, rows as in the draw.
    """
    values, informative = advantages.values, advantages.informative
    if draw.slots is not None:
        slot, place = draw.slots.slot, draw.slots.place

        def rows(of_prompt: Array, *where: Array) -> Array:
            return of_prompt.at[slot, *where].get(mode="fill", fill_value=0)

        kept, values = rows(kept, place)[:, None], rows(values, place)[:, None]
        accept, informative, late = rows(accept), rows(informative), rows(late)
    log_probs = groups.rollouts.log_probs
    return RolloutBatch(
        index=draw.index,
        prompt=draw.prompt,
        prompt_mask=draw.prompt_mask,
        tokens=groups.rollouts.tokens,
        mask=groups.rollouts.mask & kept[:, :, None],
        # Clipping would hide an infinite ratio; NaN makes the update skip the step and count it.
        log_probs=jnp.where(jnp.isfinite(log_probs), log_probs, jnp.nan),
        advantages=values,
        informative=informative,
        accept=accept,
        weight=draw.weight * late,
    )


def _mean_entropy(rollouts: Rollouts, counted: Array) -> Array:
    """An estimate of each rollout's mean token entropy, NaN where it does not count.

    Minus the log-probability of what was drawn: without bias where all tokens could be drawn.
    """
    tokens = rollouts.mask.sum(axis=-1, dtype=jnp.int32)
    surprise = -jnp.where(rollouts.mask, rollouts.log_probs, 0).sum(axis=-1)
    mean = surprise / jnp.maximum(tokens, 1).astype(surprise.dtype)
    return jnp.where(counted & (tokens > 0), mean, jnp.nan)


def _count_visits(visits: Array, index: Array) -> Array:
    """One more visit for each prompt of the batch; padding goes past the end and is dropped."""
    rows = jnp.where(index < 0, visits.shape[0], index)
    return visits.at[rows].add(1, mode="drop")
