"""The batch of rollouts an update consumes, and its static division into smaller batches."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.types import Array, Bool, Float


class RolloutBatch(NamedTuple):
    """Rollouts of B prompts, G each; every field leads with the prompt axis.

    A row takes part in the loss if it is no padding, is accepted and is informative; a rollout
    if it also has a token under ``mask``.

    Attributes:
        index: Prompt id, -1 for a row of padding. int32[B].
        prompt: Prompt tokens, left padded. int32[B, P].
        prompt_mask: Which of them are real. bool[B, P].
        tokens: Response tokens. int32[B, G, T].
        mask: Which of them were generated. bool[B, G, T].
        log_probs: Log-probabilities recorded while sampling. float32[B, G, T].
        advantages: Advantage of each rollout. float32[B, G].
        informative: Whether the group's rewards differ. bool[B].
        accept: Whether the selector lets the loss see the group. bool[B].
        weight: The group's weight in the numerator of the loss. float32[B].
    """

    index: Array
    prompt: Array
    prompt_mask: Array
    tokens: Array
    mask: Array
    log_probs: Array
    advantages: Array
    informative: Array
    accept: Array
    weight: Array


class MicroBatch(NamedTuple):
    """What one forward and backward pass needs; ``b`` prompts with ``g`` rollouts each.

    Attributes:
        prompt: int32[b, P].
        prompt_mask: bool[b, P].
        tokens: int32[b, g, T].
        mask: Generated tokens of real rows. bool[b, g, T].
        sampler_log_probs: float32[b, g, T].
        advantages: float32[b, g].
        token_weights: float32[b, g, T].
        old_log_probs: Before the update, or None where they are those of this very pass.
            float32[b, g, T].
        reference_log_probs: float32[b, g, T], or None without a reference.
    """

    prompt: Array
    prompt_mask: Array
    tokens: Array
    mask: Array
    sampler_log_probs: Array
    advantages: Array
    token_weights: Array
    old_log_probs: Array | None = None
    reference_log_probs: Array | None = None


def split_rows(tree, size: int):
    """Divide the leading axis into batches of ``size`` rows, every field ``[M, size, ...]``.

    Batch ``m`` takes the rows ``m, m + M, m + 2M, ...``: where the rows are sharded in
    contiguous blocks, every device keeps an equal share of every small batch and no row moves.

    Args:
        tree: Pytree of arrays with one leading length.
        size: Rows of each small batch; must divide that length.

    Returns:
        The tree with leading axes ``[M, size]``.

    Raises:
        TypeError: A leaf is no array, or ``size`` no integer.
        ValueError: ``size`` does not divide the leading length.

    >>> split_rows(jnp.arange(6), 2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    checks.require_counts(size=size)
    _require_leaves(tree, 1)
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % size:
            raise ValueError(f"size={size} must divide the {leaf.shape[0]} rows of tree")
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(size, x.shape[0] // size, *x.shape[1:]), 0, 1), tree
    )


def join_rows(tree):
    """Undo :func:`split_rows`: ``[M, size, ...]`` back to ``[M * size, ...]`` in row order.

    Args:
        tree: Pytree of arrays with leading axes ``[M, size]``.

    Returns:
        The tree with one leading axis.

    Raises:
        TypeError: A leaf is no array.
        ValueError: A leaf has fewer than two axes.

    >>> join_rows(split_rows(jnp.arange(6), 2)).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    _require_leaves(tree, 2)
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree
    )


def _require_leaves(tree, axes: int) -> None:
    """Refuse leaves that are no arrays, or have fewer axes."""
    for leaf in jax.tree.leaves(tree):
        checks.require_type((jax.Array, np.ndarray), "a pytree of arrays", tree=leaf)
        if leaf.ndim < axes:
            raise ValueError(f"tree holds an array of shape {leaf.shape}: it needs {axes} axes")


def split_micro(batch: MicroBatch, sequences: int | None, ways: int = 1) -> MicroBatch:
    """Divide a mini-batch into micro-batches, every field ``[M, b, ...]``.

    Args:
        batch: The mini-batch, fields ``[B, ...]`` and ``[B, G, ...]``.
        sequences: Sequences of a micro-batch: a multiple of G (whole groups) or a divisor of
            it (a group is divided and its prompt repeated); None keeps the mini-batch whole.
        ways: Devices that share the prompts. Where whole groups would be fewer prompts than
            that, groups are divided instead, so that every device has its share of the work.

    Returns:
        The same batch with a leading axis of micro-batches.

    Raises:
        TypeError: ``batch`` is something else, or ``sequences`` or ``ways`` no integer.
        ValueError: The sizes do not divide.
    """
    checks.require_type(MicroBatch, "a MicroBatch", batch=batch)
    checks.require_counts(ways=ways, **checks.given(sequences=sequences))
    prompts, group = batch.tokens.shape[:2]
    rows, share = _micro_shape(prompts, group, sequences or prompts * group, ways)
    batch = split_rows(batch, rows)
    parts = group // share

    def per_prompt(x: Array) -> Array:
        return x if parts == 1 else jnp.repeat(x, parts, axis=0)

    def per_rollout(x: Array) -> Array:
        x = x.reshape(x.shape[0], rows, parts, share, *x.shape[3:])
        return jnp.swapaxes(x, 1, 2).reshape(-1, rows, share, *x.shape[4:])

    repeated = {"prompt": per_prompt(batch.prompt), "prompt_mask": per_prompt(batch.prompt_mask)}
    return jax.tree.map(per_rollout, batch._replace(prompt=None, prompt_mask=None))._replace(
        **repeated
    )


def _micro_shape(prompts: int, group: int, sequences: int, ways: int) -> tuple[int, int]:
    """Prompts, and rollouts of each, in a micro-batch; evenly over the devices if that is possible.

    >>> _micro_shape(128, 8, 256, 1), _micro_shape(128, 8, 256, 64), _micro_shape(4, 8, 2, 4)
    ((32, 8), (64, 4), (1, 2))
    """
    shapes = [
        (sequences // share, share)
        for share in range(group, 0, -1)
        if group % share == 0 and sequences % share == 0 and prompts % (sequences // share) == 0
    ]
    for rows, share in shapes:
        if rows % ways == 0:
            return rows, share
    if not shapes:
        raise ValueError(
            f"micro_batch={sequences} sequences does not divide a mini-batch of {prompts} prompts "
            f"x {group} rollouts: use a divisor of {group}, or {group} times a divisor of {prompts}"
        )
    return shapes[0]


def join_micro(values: Array, batch_shape: tuple[int, ...]) -> Array:
    """Put per-token values of micro-batches ``[M, b, g, T]`` back to ``[B, G, T]``.

    Raises:
        TypeError: ``values`` is no array, or ``batch_shape`` no tuple.
        ValueError: One does not fit the other.
    """
    checks.require_arrays(values=(values, "any M b g T"))
    checks.require_type((tuple, list), "the shape [B, G, T]", batch_shape=batch_shape)
    whole = tuple(batch_shape)
    if len(whole) != 3 or whole[1] % values.shape[2] or values.size != math.prod(whole):
        raise ValueError(f"values of shape {values.shape} do not make batch_shape={whole}")
    _, rows, share, size = values.shape
    parts = batch_shape[1] // share
    groups = values.reshape(-1, parts, rows, share, size)
    return join_rows(jnp.swapaxes(groups, 1, 2).reshape(-1, rows, batch_shape[1], size))


def numerator_weight(batch: RolloutBatch) -> Float[Array, "B"]:
    """Weight of each row in the loss: 0 for padding, vetoed and uninformative rows.

    Args:
        batch: The rollouts.

    Returns:
        float32[B].

    Raises:
        TypeError: ``batch`` is something else.
    """
    checks.require_type(RolloutBatch, "a RolloutBatch", batch=batch)
    used = (batch.index >= 0) & batch.accept & batch.informative
    return jnp.where(used, batch.weight, 0)


def valid_tokens(batch: RolloutBatch) -> Bool[Array, "B G T"]:
    """Generated tokens of the rows that are no padding.

    Args:
        batch: The rollouts.

    Returns:
        bool[B, G, T].

    Raises:
        TypeError: ``batch`` is something else.
    """
    checks.require_type(RolloutBatch, "a RolloutBatch", batch=batch)
    return batch.mask & (batch.index >= 0)[:, None, None]
