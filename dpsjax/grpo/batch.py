"""The batch of rollouts an update consumes, and its static division into smaller batches."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.grpo.advantages import AdvantageFunction, Advantages, group_normalized
from dpsjax.grpo.config import GRPOConfig
from dpsjax.policy import Rollouts
from dpsjax.types import Array, Bool, Float, PyTree


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
        images: What the prompts show, ``dpsjax.policy.Images``; None where there are no pictures.
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
    images: PyTree = None

    @classmethod
    def of(
        cls,
        index: Array,
        prompt: Array,
        prompt_mask: Array,
        rollouts: Rollouts,
        rewards: Array,
        *,
        valid: Array | None = None,
        accept: Array | None = None,
        weight: Array | None = None,
        advantages: AdvantageFunction | Advantages = group_normalized,
        images: PyTree = None,
    ) -> "RolloutBatch":
        """A batch from the rewards of its rollouts.

        Args:
            index: Prompt ids, -1 for a row of padding. int[B].
            prompt: Prompt tokens, left padded. int[B, P].
            prompt_mask: Which of them are real. bool[B, P].
            rollouts: As of :func:`dpsjax.policy.generate`, ``[B, G, T]``.
            rewards: float[B, G].
            valid: Rollouts that count, because they were scored for example; default all.
                bool[B, G].
            accept: Groups that the loss may see, as of ``dpsjax.observe``; default all. bool[B].
            weight: The groups' weights in the loss; default 1. float[B].
            advantages: From rewards to advantages; or they themselves, where they were found in
                another way.
            images: What the prompts show, as given to ``dpsjax.policy.generate``.

        Returns:
            What an update consumes. A rollout whose recorded log-probabilities are not finite makes
            the update skip its step, and count it.

        Raises:
            TypeError: An argument is no array, or of another kind.
            ValueError: Shapes do not fit each other.

        >>> shape = (1, 2, 3)  # one prompt, two responses of three tokens
        >>> rollouts = Rollouts(
        ...     jnp.ones(shape, jnp.int32), jnp.ones(shape, bool), jnp.zeros(shape), jnp.int32(3)
        ... )
        >>> prompt, rewards = jnp.ones((1, 4), jnp.int32), jnp.array([[1.0, 0.0]])
        >>> batch = RolloutBatch.of(jnp.array([7]), prompt, prompt > 0, rollouts, rewards)
        >>> batch.advantages.round().tolist(), batch.informative.tolist()
        ([[1.0, -1.0]], [True])
        """
        checks.require_type(Rollouts, "Rollouts, as of dpsjax.policy.generate", rollouts=rollouts)
        shown = checks.given(valid=valid, accept=accept, weight=weight)
        forms = {"valid": "bool B G", "accept": "bool B", "weight": "float B"}
        checks.require_arrays(
            index=(index, "int B"),
            prompt=(prompt, "int B P"),
            prompt_mask=(prompt_mask, "bool B P"),
            tokens=(rollouts.tokens, "int B G T"),
            mask=(rollouts.mask, "bool B G T"),
            log_probs=(rollouts.log_probs, "float B G T"),
            rewards=(rewards, "float B G"),
            **{name: (value, forms[name]) for name, value in shown.items()},
        )
        real = jnp.broadcast_to((index >= 0)[:, None], rewards.shape)
        valid = real if valid is None else real & valid
        if isinstance(advantages, Advantages):
            found = advantages
        else:
            checks.require_callable(advantages=advantages)
            found = advantages(rewards, valid)
        chex.assert_equal_shape([found.values, rewards])
        chex.assert_equal_shape([found.informative, index])
        log_probs = rollouts.log_probs
        return cls(
            index=index.astype(jnp.int32),
            prompt=prompt.astype(jnp.int32),
            prompt_mask=prompt_mask,
            tokens=rollouts.tokens.astype(jnp.int32),
            mask=rollouts.mask & valid[:, :, None],
            # Clipping would hide an infinite ratio.
            log_probs=jnp.where(jnp.isfinite(log_probs), log_probs, jnp.nan),
            advantages=found.values,
            informative=found.informative,
            accept=jnp.ones(index.shape, bool) if accept is None else accept,
            weight=jnp.ones(index.shape, jnp.float32) if weight is None else weight,
            images=images,
        )


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
        images: What the prompts show, ``[b, ...]``, or None.
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
    images: PyTree = None


def batch_rows(config: GRPOConfig, prompts: int, ways: int = 1) -> int:
    """Rows of a batch: prompts first, then as much padding as lets devices share every step.

    :func:`dpsjax.grpo.make_update` divides the prompts into mini-batches of ``mini_batch``, on any
    number of devices the same ones, and each of them is padded.

    Args:
        config: Gives the mini- and the micro-batch.
        prompts: Prompts of a batch.
        ways: Devices that share a batch, ``data * fsdp`` of the mesh.

    Returns:
        The rows.

    Raises:
        TypeError: ``config`` is something else, or a number no integer.
        ValueError: The mini-batch does not divide the prompts, or the micro-batch that.

    >>> batch_rows(GRPOConfig(mini_batch=2), prompts=4, ways=3)
    6
    >>> batch_rows(GRPOConfig(), prompts=4, ways=8)
    8
    """
    checks.require_type(GRPOConfig, "a GRPOConfig", config=config)
    checks.require_counts(prompts=prompts, ways=ways)
    mini, group = config.mini_batch or prompts, config.rollouts_per_prompt
    if prompts % mini != 0:
        raise ValueError(f"mini_batch={mini} must divide the {prompts} prompts of a batch")
    rows = round_up(mini, ways)
    _micro_shape(rows, group, config.micro_batch or rows * group, ways)
    return prompts // mini * rows


def round_up(count: int, multiple: int) -> int:
    """The least multiple that is not below ``count``."""
    return -(-count // multiple) * multiple


def split_rows(tree, size: int):
    """Divide the leading axis into batches of ``size`` rows, every field ``[M, size, ...]``.

    Batch ``m`` takes the rows ``m, m + M, m + 2M, ...``: where the rows are sharded in
    contiguous blocks, every device keeps an equal share of every small batch and no row moves.

    Args:
        tree: Pytree of arrays with one leading length.
        size: Rows of each small batch; must divide that length.

    Returns:
        The tree with leading axes ``[M, size]``.

    >>> split_rows(jnp.arange(6), 2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(size, x.shape[0] // size, *x.shape[1:]), 0, 1), tree
    )


def join_rows(tree):
    """Undo :func:`split_rows`: ``[M, size, ...]`` back to ``[M * size, ...]`` in row order.

    Args:
        tree: Pytree of arrays with leading axes ``[M, size]``.

    Returns:
        The tree with one leading axis.

    >>> join_rows(split_rows(jnp.arange(6), 2)).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree
    )


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
        ValueError: The sizes do not divide.
    """
    prompts, group = batch.tokens.shape[:2]
    rows, share = _micro_shape(prompts, group, sequences or prompts * group, ways)
    batch = split_rows(batch, rows)
    parts = group // share

    def per_prompt(x: Array) -> Array:
        return x if parts == 1 else jnp.repeat(x, parts, axis=0)

    def per_rollout(x: Array) -> Array:
        x = x.reshape(x.shape[0], rows, parts, share, *x.shape[3:])
        return jnp.swapaxes(x, 1, 2).reshape(-1, rows, share, *x.shape[4:])

    names = ("prompt", "prompt_mask", "images")  # of a prompt, not of each rollout
    repeated = {name: jax.tree.map(per_prompt, getattr(batch, name)) for name in names}
    others = batch._replace(**dict.fromkeys(names))
    return jax.tree.map(per_rollout, others)._replace(**repeated)


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
    """Put per-token values of micro-batches ``[M, b, g, T]`` back to ``[B, G, T]``."""
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
    """
    used = (batch.index >= 0) & batch.accept & batch.informative
    return jnp.where(used, batch.weight, 0)


def valid_tokens(batch: RolloutBatch) -> Bool[Array, "B G T"]:
    """Generated tokens of the rows that are no padding.

    Args:
        batch: The rollouts.

    Returns:
        bool[B, G, T].
    """
    return batch.mask & (batch.index >= 0)[:, None, None]
