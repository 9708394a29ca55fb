"""The host side of a step: tokens to text, text to rewards, rewards back to the devices."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from dpsjax.loop.groups import Groups
from dpsjax.loop.responses import Response
from dpsjax.loop.scoring import Overlong, score_safely
from dpsjax.policy import Rollouts
from dpsjax.tasks.base import Problem, Task, stop_ids
from dpsjax.types import Array


def local_rows(array: Array) -> np.ndarray:
    """The rows of an array, sharded over its first axis, that this process holds, in order."""
    shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


class Judged(NamedTuple):
    """Scored responses.

    Attributes:
        groups: in the shardings of the rollouts.
        errors: what the verifier failed with.
        responses: of this process, row by row.
    """

    groups: Groups
    errors: list[str]
    responses: list[Response]


def score_rollouts(
    task: Task,
    problems: Sequence[Problem],
    index: Array,
    rollouts: Rollouts,
    overlong: Overlong | None = None,
) -> Judged:
    """Decode and score the responses. Each process scores those it holds.

    Args:
        task: decodes and scores.
        problems: what the ids in ``index`` count.
        index: int32[R], -1 is padding, sharded over R.
        rollouts: R rows, sharded likewise.
        overlong: what long responses lose of their rewards.

    Returns:
        the verdicts. A rollout without a finite reward is invalid.
    """
    ids, tokens = local_rows(index), local_rows(rollouts.tokens)
    lengths = local_rows(rollouts.mask).sum(axis=2)
    rows, group, most = tokens.shape
    ended = np.isin(tokens[:, :, -1], stop_ids(task.tokenizer)) | (lengths < most)
    asked, texts, made = [], [], []
    for row in np.flatnonzero(ids >= 0):
        asked += [problems[ids[row]]] * group
        texts += [task.tokenizer.decode(response) for response in tokens[row]]
        made += [(int(ids[row]), int(lengths[row, g]), not ended[row, g]) for g in range(group)]
    scored, errors = score_safely(task, asked, texts)
    if overlong is not None:
        losses = [overlong.of(length, most) for _, length, _ in made]
        scored = [
            None if score is None else score._replace(reward=score.reward + loss)
            for score, loss in zip(scored, losses, strict=True)
        ]
    responses = [
        Response(prompt, text, length, cut, score)
        for (prompt, length, cut), text, score in zip(made, texts, scored, strict=True)
    ]
    verdicts = iter(scored)
    rewards = np.zeros((rows, group), np.float32)
    correct, valid = np.zeros((rows, group), bool), np.zeros((rows, group), bool)
    for row in np.flatnonzero(ids >= 0):
        for column in range(group):
            if (score := next(verdicts)) is not None:
                rewards[row, column], correct[row, column] = score.reward, score.correct
                valid[row, column] = True
    sharding = rollouts.mask.sharding
    placed = (_place(values, sharding, index.shape[0]) for values in (rewards, correct, valid))
    return Judged(Groups(rollouts, *placed), errors, responses)


def _place(local: np.ndarray, sharding: Sharding, rows: int) -> Array:
    """Make a global array of ``rows`` rows out of each process's own."""
    shape = (rows, *local.shape[1:])
    return jax.make_array_from_process_local_data(sharding, local, shape)
