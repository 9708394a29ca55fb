"""The collector: every round offers its groups; when enough have come, an update takes a batch.

Where a step has one round, the groups pass through. Where rounds go on until enough groups are
accepted (DAPO, 2503.14476), or a few rollouts decide which prompts get the rest (SPEED-RL,
2506.09016), accepted groups wait in a buffer of fixed size from which nothing is thrown away: what
one update does not take is first in the next. The buffer is part of the state, and of its
checkpoints.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import selectors
from dpsjax.belief import hmm
from dpsjax.grpo.advantages import AdvantageFunction, Advantages, BeliefAdvantages
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.loop.groups import (
    Collected,
    Draw,
    Groups,
    Seen,
    collected,
    cut_off,
    endless,
    group_shapes,
    of_prompts,
    of_rows,
    padded,
    what_was_seen,
)
from dpsjax.loop.state import TrainState
from dpsjax.policy import Rollouts
from dpsjax.rollouts import Buffer, init_buffer, max_variance_subset, push, take
from dpsjax.selectors import BetaView, Selector
from dpsjax.selectors.base import newest
from dpsjax.types import Array, PyTree


class Collector(NamedTuple):
    """How groups come together for an update.

    Attributes:
        batch_size: B, groups of an update.
        max_rounds: After so many rounds the update takes what there is; with 1, groups never wait.
        rest: Rollouts that only the prompts of accepted groups get; 0 if all get all at once.
    """

    batch_size: int
    max_rounds: int = 1
    rest: int = 0

    @property
    def waits(self) -> bool:
        """Whether groups may wait for a later update."""
        return self.max_rounds > 1 or self.rest > 0

    def empty(
        self, group: int, prompt_tokens: int, response_tokens: int, images: PyTree = None
    ) -> Buffer | tuple[()]:
        """Room for what waits.

        Args:
            group: rollouts of a round, of each prompt.
            prompt_tokens: P.
            response_tokens: T.
            images: shapes of what a prompt shows, or None.

        Returns:
            room for 2 B groups; a step stops when B of them wait, so it cannot overflow.
        """
        if not self.waits:
            return ()
        one = group_shapes(group, prompt_tokens, response_tokens, images)
        return init_buffer(one, 2 * self.batch_size)

    def offer(self, pending: Buffer | tuple[()], groups: Collected) -> Buffer | Collected:
        """What waits, with the accepted groups of one more round."""
        if isinstance(pending, Buffer):
            return push(pending, groups, groups.accept)
        return groups

    def ready(self, waiting: int, rounds: int) -> bool:
        """Whether an update may take its batch after so many rounds of a step."""
        return rounds >= self.max_rounds or (self.waits and waiting >= self.batch_size)

    def take(self, pending: Buffer | Collected, rows: int) -> tuple[Collected, Buffer | tuple[()]]:
        """The groups that waited longest, R rows, and what waits on."""
        if isinstance(pending, Buffer):
            groups, valid, rest = take(pending, self.batch_size)
            return padded(groups, valid, rows), rest
        return pending, ()


def rounds_of(limit: int | None, batch_size: int, num_prompts: int) -> int:
    """Rounds that a step may take.

    Args:
        limit: of the settings; None to go on until the batch is full.
        batch_size: B.
        num_prompts: N.

    Returns:
        the limit. Without one, so many that the whole pool could be asked once: a policy that
        answers none of it in two ways would be asked for ever.

    >>> rounds_of(None, 64, 1000), rounds_of(4, 64, 1000)
    (16, 4)
    """
    return -(-num_prompts // batch_size) if limit is None else limit


class RoundReport(NamedTuple):
    """What a round of rollouts showed, replicated on all devices; most steps have one round.

    Attributes:
        index: int32[R].
        asked: Rollouts made. int32[R].
        passes: Correct rollouts. int32[R].
        trials: Valid rollouts. int32[R].
        accept: Whether the selector lets the loss see the group. bool[R].
        observed: None, some or all passed (0, 1, 2), -1 where nothing was seen. int32[R].
        length: Mean tokens of a valid response. float32[R].
        predicted: Draw.predicted.
        occupancy: Draw.occupancy.
        reward: Mean over the valid rollouts. float32[].
        tokens: Generated tokens. int32[].
        covered: Distinct prompts visited so far. int32[].
        waiting: Accepted groups that wait for an update. int32[].
        truncated: Responses without an end within their limit. int32[].
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
    truncated: Array


def learn(
    selector: Selector,
    state: TrainState,
    draw: Draw,
    groups: Groups,
    stop_ids: Sequence[int] = (),
) -> tuple[TrainState, Collected, RoundReport]:
    """Let the belief and the counters learn from a round of rollouts; the policy comes later.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        state: before.
        draw: the prompts.
        groups: their scored rollouts.
        stop_ids: tokens that end a response.

    Returns:
        ``(state, groups with what the selector said of them, report)``.
    """
    seen = what_was_seen(draw.index, groups, draw.slots)
    feedback, belief = selectors.observe(
        selector,
        state.selector,
        seen.index,
        seen.passes,
        seen.trials,
        rewards=seen.correct.astype(jnp.float32),
        entropies=seen.entropy,
        advance=False,  # a step may have several rounds; its update lets it pass
    )
    visited = (seen.index >= 0) & (seen.asked > 0)
    row = jnp.where(visited, seen.index, state.visits.shape[0])
    new = state._replace(
        selector=belief,
        position=state.position + (seen.index >= 0).sum(dtype=jnp.int32),
        rollouts=state.rollouts + seen.asked.sum(dtype=jnp.int32),
        visits=state.visits.at[row].add(1, mode="drop"),
    )
    report = report_of(seen, new, feedback.accept, draw.predicted, draw.occupancy)
    report = report._replace(truncated=cut_off(draw.index, groups.rollouts, stop_ids))
    return new, collected(draw, groups, feedback, state.step), report


def report_of(
    seen: Seen, state: TrainState, accept: Array, predicted: Array, occupancy: Array
) -> RoundReport:
    """The report of a round, from what was seen and the state after it."""
    trials = seen.trials
    tokens = seen.tokens.sum(axis=1, dtype=jnp.int32)
    total = jnp.maximum(trials.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    return RoundReport(
        index=seen.index,
        asked=seen.asked,
        passes=seen.passes,
        trials=trials,
        accept=accept,
        observed=hmm.solve_state(seen.passes, trials),
        length=tokens.astype(jnp.float32) / jnp.maximum(trials, 1).astype(jnp.float32),
        predicted=predicted,
        occupancy=occupancy,
        reward=jnp.where(seen.counted, seen.rewards, 0).sum() / total,
        tokens=tokens.sum(dtype=jnp.int32),
        covered=(state.visits > 0).sum(dtype=jnp.int32),
        waiting=jnp.zeros((), jnp.int32),
        truncated=jnp.zeros((), jnp.int32),
    )


def later_report(
    state: TrainState, taken: Collected, groups: Groups, stop_ids: Sequence[int]
) -> RoundReport:
    """The report of rollouts after a screening: the belief does not judge or learn from them."""
    seen = what_was_seen(taken.index, groups)
    nothing = jnp.zeros(3, jnp.float32)
    table = jnp.zeros((3, *taken.index.shape), jnp.float32)
    report = report_of(seen, state, taken.index >= 0, table, nothing)
    truncated = cut_off(taken.index, groups.rollouts, stop_ids)
    return report._replace(observed=jnp.full_like(report.observed, -1), truncated=truncated)


def rollout_batch(
    taken: Collected,
    advantages: AdvantageFunction | BeliefAdvantages,
    keep: int | None,
    selector: Selector,
    belief: PyTree,
    without_endless: Sequence[int] | None = None,
) -> RolloutBatch:
    """What the policy update consumes.

    Args:
        taken: the groups.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: Rollouts of each group that the loss may see (:func:`max_variance_subset`).
        selector: of :func:`dpsjax.loop.watched.watched`.
        belief: its state, which has seen these groups.
        without_endless: tokens that end a response, for a loss that does not see responses without
            an end; their rewards count in their groups. None for one that does.

    Returns:
        rows as in ``taken``.
    """
    slots, real = taken.slots, (taken.index >= 0)[:, None]
    index, rewards, correct, kept = taken.index, taken.rewards, taken.correct, taken.valid & real
    if slots is not None:
        index = slots.index
        rewards, correct, kept = (of_prompts(slots, x) for x in (rewards, correct, kept))
    if keep is not None:
        # A mask: shapes stay those of the whole group, and so does the cost of the update.
        kept &= max_variance_subset(rewards, keep)
    if isinstance(advantages, BeliefAdvantages):
        passed = correct.astype(rewards.dtype)
        found = _believed_advantages(advantages, selector, belief, index, passed, kept)
    else:
        found = advantages(rewards, kept)
    values, informative = found
    if slots is not None:
        values, kept, informative = (of_rows(slots, x) for x in (values, kept, informative))
    mask = taken.mask
    if without_endless is not None:
        mask &= ~endless(taken.tokens, mask, without_endless)[..., None]
    return RolloutBatch.of(
        taken.index,
        taken.prompt,
        taken.prompt_mask,
        Rollouts(taken.tokens, mask, taken.log_probs, steps=jnp.zeros((), jnp.int32)),
        taken.rewards,
        valid=kept,
        accept=taken.accept,
        weight=taken.weight,
        advantages=Advantages(values, informative),
        images=taken.images,
    )


def _believed_advantages(
    advantages: BeliefAdvantages,
    selector: Selector,
    belief: PyTree,
    index: Array,
    passed: Array,
    kept: Array,
) -> Advantages:
    """Advantages from the Beta belief that has seen these groups."""
    rows = jnp.maximum(index, 0)
    wanted = newest(selector.publish(belief), BetaView, "the advantages", "track_beta")
    a, b = wanted.a[rows], wanted.b[rows]
    return advantages(passed, kept, a.astype(passed.dtype), b.astype(passed.dtype))
