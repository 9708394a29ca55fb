"""What travels through a step: the draw, its scored groups, and the groups that were collected."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dpsjax.policy import Rollouts
from dpsjax.selectors import Feedback
from dpsjax.types import Array, Bool, Int, PyTree


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
    """The prompts of a round, R rows: the batch, padded to a multiple of the devices.

    Attributes:
        index: Prompt ids, -1 is padding. int32[R].
        weight: Loss weights. float32[R].
        prompt: int32[R, P].
        prompt_mask: bool[R, P].
        predicted: Chances that none, some or all rollouts pass, before they are made, of each
            prompt. float32[3, R], or float32[3, B] with slots.
        occupancy: Their means over the whole pool. float32[3].
        slots: Given where each row is one rollout.
        images: What the prompts show, ``[R, ...]``; None where there are no pictures.
    """

    index: Array
    weight: Array
    prompt: Array
    prompt_mask: Array
    predicted: Array
    occupancy: Array
    slots: Slots | None = None
    images: PyTree = None


class Groups(NamedTuple):
    """Scored rollouts of the prompts of a round.

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


class Collected(NamedTuple):
    """Groups that the belief has learned from and the policy has not.

    Attributes:
        index: Prompt ids, -1 is padding. int32[R].
        weight: Loss weights, of the draw and of the feedback together. float32[R].
        accept: Whether the selector lets the loss see the group. bool[R].
        step: Steps that the policy had made when it answered. int32[R].
        prompt: int32[R, P].
        prompt_mask: bool[R, P].
        tokens: int32[R, G, T].
        mask: bool[R, G, T].
        log_probs: float32[R, G, T].
        rewards: float32[R, G].
        correct: bool[R, G].
        valid: bool[R, G].
        slots: As in the draw.
        images: As in the draw.
    """

    index: Array
    weight: Array
    accept: Array
    step: Array
    prompt: Array
    prompt_mask: Array
    tokens: Array
    mask: Array
    log_probs: Array
    rewards: Array
    correct: Array
    valid: Array
    slots: Slots | None = None
    images: PyTree = None


def group_shapes(
    group: int, prompt_tokens: int, response_tokens: int, images: PyTree = None
) -> Collected:
    """Shapes of one collected group: a prompt of P tokens and what it shows, G responses of T."""

    def leaf(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    return Collected(
        index=leaf(jnp.int32),
        weight=leaf(jnp.float32),
        accept=leaf(bool),
        step=leaf(jnp.int32),
        prompt=leaf(jnp.int32, prompt_tokens),
        prompt_mask=leaf(bool, prompt_tokens),
        tokens=leaf(jnp.int32, group, response_tokens),
        mask=leaf(bool, group, response_tokens),
        log_probs=leaf(jnp.float32, group, response_tokens),
        rewards=leaf(jnp.float32, group),
        correct=leaf(bool, group),
        valid=leaf(bool, group),
        images=images,
    )


def collected(draw: Draw, groups: Groups, feedback: Feedback, step: Array) -> Collected:
    """The groups of a round, with what the selector said of them.

    Args:
        draw: the prompts.
        groups: their rollouts.
        feedback: by prompt.
        step: steps of the policy so far. int32[].

    Returns:
        rows as in the draw.
    """
    accept, weight = feedback
    if draw.slots is not None:
        accept, weight = of_rows(draw.slots, accept), of_rows(draw.slots, weight)
    rollouts = groups.rollouts
    return Collected(
        index=draw.index,
        weight=draw.weight * weight,
        accept=accept,
        step=jnp.broadcast_to(step, draw.index.shape),
        prompt=draw.prompt,
        prompt_mask=draw.prompt_mask,
        tokens=rollouts.tokens,
        mask=rollouts.mask,
        log_probs=rollouts.log_probs,
        rewards=groups.rewards,
        correct=groups.correct,
        valid=groups.valid,
        slots=draw.slots,
        images=draw.images,
    )


def joined(first: Collected, later: Groups) -> Collected:
    """First and later rollouts of the same prompts as one group each."""
    more = (
        later.rollouts.tokens,
        later.rollouts.mask,
        later.rollouts.log_probs,
        later.rewards,
        later.correct,
        later.valid,
    )
    names = ("tokens", "mask", "log_probs", "rewards", "correct", "valid")
    both = {
        name: jnp.concatenate([getattr(first, name), new], axis=1)
        for name, new in zip(names, more, strict=True)
    }
    return first._replace(**both)


def slots_of(
    index: Int[Array, "B"], number: Int[Array, "B"], most: int, rows: int
) -> tuple[Slots, Int[Array, "S"]]:
    """Line up the rollouts of prompts.

    Args:
        index: prompt ids, -1 is padding, which gets no rollouts.
        number: rollouts of each prompt, at most ``most``.
        most: H.
        rows: S, at least the sum of the numbers.

    Returns:
        the slots, and the prompt id of each row, -1 for padding.

    >>> ids, number = jnp.array([7, -1, 3], jnp.int32), jnp.array([2, 1, 1], jnp.int32)
    >>> slots, of_row = slots_of(ids, number, 2, 4)
    >>> of_row.tolist(), slots.slot.tolist(), slots.place.tolist()
    ([7, 7, 3, -1], [0, 0, 2, 3], [0, 1, 0, 0])
    >>> slots.row.tolist()
    [[0, 1], [4, 4], [2, 4]]
    """
    number = jnp.where(index < 0, 0, number)
    ends = jnp.cumsum(number, dtype=jnp.int32)
    place = jnp.arange(most, dtype=jnp.int32)[None]
    row = jnp.where(place < number[:, None], (ends - number)[:, None] + place, rows)
    line = jnp.arange(rows, dtype=jnp.int32)
    slot = jnp.searchsorted(ends, line, side="right").astype(jnp.int32)
    start = (ends - number).at[slot].get(mode="fill", fill_value=0)
    past = slot == index.shape[0]
    place_of_row = jnp.where(past, 0, line - start)
    of_row = index.at[slot].get(mode="fill", fill_value=-1)
    return Slots(index, row, slot, place_of_row), of_row


def padded(groups: Collected, valid: Bool[Array, "B"], rows: int) -> Collected:
    """Groups taken from a buffer, with rows of padding behind them.

    Args:
        groups: B of them.
        valid: which are real.
        rows: R >= B.

    Returns:
        R rows; id -1 and a prompt of one token where there is no group.
    """
    short = rows - valid.shape[0]
    groups, valid = jax.tree.map(
        lambda x: jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1)), (groups, valid)
    )
    return groups._replace(
        index=jnp.where(valid, groups.index, -1),
        # A sound input, also where there is no prompt.
        prompt_mask=groups.prompt_mask.at[:, -1].set(True),
    )


def of_prompts(slots: Slots, rows: Array, empty: float = 0.0) -> Array:
    """Rows of one rollout, ``[S, 1]``, put beside the others of their prompt: ``[B, H]``."""
    return rows[:, 0].at[slots.row].get(mode="fill", fill_value=empty)


def of_rows(slots: Slots, values: Array) -> Array:
    """The inverse: ``[S, 1]`` of ``[B, H]``, or the value of each row's prompt, ``[S]`` of ``[B]``.

    Rows of padding get 0.
    """
    if values.ndim == 1:
        return values.at[slots.slot].get(mode="fill", fill_value=0)
    return values.at[slots.slot, slots.place].get(mode="fill", fill_value=0)[:, None]


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

    @property
    def passes(self) -> Int[Array, "R"]:
        """Correct rollouts."""
        return (self.correct & self.counted).sum(axis=1, dtype=jnp.int32)

    @property
    def trials(self) -> Int[Array, "R"]:
        """Valid rollouts."""
        return self.counted.sum(axis=1, dtype=jnp.int32)


def what_was_seen(index: Int[Array, "R"], groups: Groups, slots: Slots | None = None) -> Seen:
    """Scored rollouts by prompt; rollouts that were not made are rows' ends that do not count."""
    counted = groups.valid & (index >= 0)[:, None]
    generated = groups.rollouts.mask & counted[:, :, None]
    seen = Seen(
        index=index,
        rewards=groups.rewards,
        correct=groups.correct,
        counted=counted,
        entropy=_mean_entropy(groups.rollouts, counted),
        tokens=generated.sum(axis=2, dtype=jnp.int32),
        asked=jnp.where(index >= 0, groups.valid.shape[1], 0).astype(jnp.int32),
    )
    if slots is None:
        return seen
    return Seen(
        index=slots.index,
        rewards=of_prompts(slots, seen.rewards),
        correct=of_prompts(slots, seen.correct),
        counted=of_prompts(slots, seen.counted),
        entropy=of_prompts(slots, seen.entropy, jnp.nan),
        tokens=of_prompts(slots, seen.tokens),
        asked=(slots.row < index.shape[0]).sum(axis=1, dtype=jnp.int32),
    )


def cut_off(index: Int[Array, "R"], rollouts: Rollouts, stop_ids: Sequence[int]) -> Int[Array, ""]:
    """How many responses have no end within their limit; those of padding do not count.

    Args:
        index: prompt ids, -1 is padding.
        rollouts: of R rows, in full length.
        stop_ids: tokens that end a response.

    Returns:
        their number.
    """
    cut = endless(rollouts.tokens, rollouts.mask, stop_ids) & (index >= 0)[:, None]
    return cut.sum(dtype=jnp.int32)


def endless(
    tokens: Int[Array, "R G T"], mask: Bool[Array, "R G T"], stop_ids: Sequence[int]
) -> Bool[Array, "R G"]:
    """Which responses have no end within their limit.

    Args:
        tokens: of the responses.
        mask: which of them were generated.
        stop_ids: tokens that end a response.
    """
    last = tokens[..., -1]
    ended = jnp.zeros(last.shape, bool)
    for stop in stop_ids:
        ended |= last == stop
    return mask[..., -1] & ~ended


def _mean_entropy(rollouts: Rollouts, counted: Array) -> Array:
    """An estimate of each rollout's mean token entropy, NaN where it does not count.

    Minus the log-probability of what was drawn: without bias where all tokens could be drawn.
    """
    tokens = rollouts.mask.sum(axis=-1, dtype=jnp.int32)
    surprise = -jnp.where(rollouts.mask, rollouts.log_probs, 0).sum(axis=-1)
    mean = surprise / jnp.maximum(tokens, 1).astype(surprise.dtype)
    return jnp.where(counted & (tokens > 0), mean, jnp.nan)
