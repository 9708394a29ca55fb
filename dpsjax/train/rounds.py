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
from dpsjax.policy import Rollouts
from dpsjax.selectors import BetaBelief, Selector
from dpsjax.train.state import TrainState
from dpsjax.train.watched import propose_all
from dpsjax.types import Array, PyTree


class Draw(NamedTuple):
    """The prompts of a step, R rows: the batch, padded to a multiple of the devices.

    Attributes:
        index: Prompt ids, -1 is padding. int32[R].
        weight: Loss weights. float32[R].
        prompt: int32[R, P].
        prompt_mask: bool[R, P].
        predicted: Probability of each solve state before the rollouts. float32[K, R].
        occupancy: Mean of that probability over the whole pool. float32[K].
    """

    index: Array
    weight: Array
    prompt: Array
    prompt_mask: Array
    predicted: Array
    occupancy: Array


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


class RoundReport(NamedTuple):
    """What a round of rollouts showed, replicated on all devices; most steps have one round.

    Attributes:
        index: int32[R].
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
        waiting: Accepted groups that wait for an update, see :mod:`dpsjax.train.refill`. int32[].
    """

    index: Array
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
        selector: of :func:`dpsjax.train.watched.watched`.
        state: before.
        draw: the prompts.
        groups: their scored rollouts.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: Rollouts of each group that the loss may see (:func:`max_variance_subset`).

    Returns:
        ``(state, batch, report)``; the batch is what a policy update consumes.
    """
    counted = groups.valid & (draw.index >= 0)[:, None]
    trials = counted.sum(axis=1, dtype=jnp.int32)
    passes = (groups.correct & counted).sum(axis=1, dtype=jnp.int32)
    accept, belief = selectors.observe(
        selector,
        state.selector,
        draw.index,
        passes,
        trials,
        rewards=groups.correct.astype(jnp.float32),
        entropies=_mean_entropy(groups.rollouts, counted),
    )
    kept = counted
    if keep is not None:
        # A mask: shapes stay those of the whole group, and so does the cost of the update.
        kept &= selectors.max_variance_subset(groups.rewards, keep)
    if isinstance(advantages, BeliefAdvantages):
        found = _believed_advantages(advantages, selector, belief, draw.index, groups, kept)
    else:
        found = advantages(groups.rewards, kept)
    batch = _loss_batch(draw, groups, kept, accept, found)
    late = selectors.late_weights(selector, belief, draw.index)
    batch = batch._replace(weight=batch.weight * late)
    new = state._replace(
        selector=belief,
        position=state.position + (draw.index >= 0).sum(dtype=jnp.int32),
        visits=_count_visits(state.visits, draw.index),
    )
    generated = groups.rollouts.mask & counted[:, :, None]
    tokens = generated.sum(axis=(1, 2), dtype=jnp.int32)
    total = jnp.maximum(trials.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    report = RoundReport(
        index=draw.index,
        passes=passes,
        trials=trials,
        accept=accept,
        observed=hmm.solve_state(passes, trials, draw.predicted.shape[0]),
        length=tokens.astype(jnp.float32) / jnp.maximum(trials, 1).astype(jnp.float32),
        predicted=draw.predicted,
        occupancy=draw.occupancy,
        reward=jnp.where(counted, groups.rewards, 0).sum() / total,
        tokens=tokens.sum(dtype=jnp.int32),
        covered=(new.visits > 0).sum(dtype=jnp.int32),
        waiting=jnp.zeros((), jnp.int32),
    )
    return new, batch, report


def _believed_advantages(
    advantages: BeliefAdvantages,
    selector: Selector,
    belief: PyTree,
    index: Array,
    groups: Groups,
    kept: Array,
) -> Advantages:
    """Advantages from the Beta belief that has seen these groups."""
    rows = jnp.maximum(index, 0)
    wanted = propose_all(selector, belief).belief(BetaBelief, "the advantages", "track_beta")
    a, b = wanted.a[rows], wanted.b[rows]
    passed = groups.correct.astype(groups.rewards.dtype)
    return advantages.function(passed, kept, a.astype(passed.dtype), b.astype(passed.dtype))


def _loss_batch(
    draw: Draw, groups: Groups, counted: Array, accept: Array, advantages: Advantages
) -> RolloutBatch:
    """What the policy update consumes."""
    log_probs = groups.rollouts.log_probs
    return RolloutBatch(
        index=draw.index,
        prompt=draw.prompt,
        prompt_mask=draw.prompt_mask,
        tokens=groups.rollouts.tokens,
        mask=groups.rollouts.mask & counted[:, :, None],
        # Clipping would hide an infinite ratio; NaN makes the update skip the step and count it.
        log_probs=jnp.where(jnp.isfinite(log_probs), log_probs, jnp.nan),
        advantages=advantages.values,
        informative=advantages.informative,
        accept=accept,
        weight=draw.weight,
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
