"""The update: one batch of rollouts in, new parameters out. Pure, static shapes, one trace.

It knows no model: the policy enters as a ``LogProbFunction``. Every mini-batch is one
optimizer step; its gradient is the sum over micro-batches, each weighed with the denominators of
the whole mini-batch, so that the division into micro-batches changes rounding alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpsjax import checks
from dpsjax.grpo import batch as batches
from dpsjax.grpo import losses
from dpsjax.grpo.batch import MicroBatch, RolloutBatch
from dpsjax.grpo.config import GRPOConfig, LossConfig
from dpsjax.policy.sharding import batch_ways
from dpsjax.types import Array, PyTree

# (params, prompt int32[b, P], prompt_mask bool[b, P], tokens int32[b, g, T], mask bool[b, g, T])
# -> (log_probs float32[b, g, T], entropy float32[b, g, T]). A prompt comes once for its g
# responses, so that the policy can compute it once. What the prompts show comes last, if they do.
LogProbFunction = Callable[..., tuple[Array, Array]]


class UpdateMetrics(NamedTuple):
    """What one update did; scalars float32.

    Attributes:
        loss: Mean over the optimizer steps.
        grad_norm: Global norm before clipping, mean over the optimizer steps.
        grad_norm_max: Its maximum.
        policy: Means per valid token (:class:`dpsjax.grpo.losses.LossMetrics`) over all steps;
            ``mismatch`` and ``mismatch_max`` are of the first step, where the parameters still
            are those that sampled.
        groups: Groups in the loss.
        steps: Optimizer steps asked for.
        skipped_nonfinite: Of these, steps skipped for a loss or gradient that is not finite.
        skipped_empty: Of these, steps skipped because no token carried weight.
    """

    loss: Array
    grad_norm: Array
    grad_norm_max: Array
    policy: losses.LossMetrics
    groups: Array
    steps: Array
    skipped_nonfinite: Array
    skipped_empty: Array


UpdateFunction = Callable[..., tuple[PyTree, PyTree, UpdateMetrics]]


class _Rows(NamedTuple):
    """A batch, and the log-probabilities that stay fixed during its update."""

    batch: RolloutBatch
    old: Array | None
    reference: Array | None


def make_update(
    config: GRPOConfig,
    log_prob_fn: LogProbFunction,
    optimizer: optax.GradientTransformation,
) -> UpdateFunction:
    """Build the update of one batch of rollouts.

    Args:
        config: Settings.
        log_prob_fn: The policy.
        optimizer: For example :func:`dpsjax.grpo.optimizer.make_optimizer`'s.

    Returns:
        ``update(params, opt_state, batch, reference_params=None) -> (params, opt_state,
        UpdateMetrics)``, to be jitted by the caller. It raises ValueError at trace time when the
        batch does not divide into the mini- and micro-batches, or when ``kl_coefficient`` is
        not 0 and ``reference_params`` is missing. A step whose loss or gradient is not finite,
        or in which no token carries weight, leaves parameters and optimizer state bit-identical.

    Raises:
        TypeError: An argument is something else.
    """
    checks.require_type(GRPOConfig, "a GRPOConfig", config=config)
    checks.require_type(optax.GradientTransformation, "an optax optimizer", optimizer=optimizer)
    checks.require_callable(log_prob_fn=log_prob_fn)
    step = _make_step(config, log_prob_fn, optimizer)
    loss = config.loss

    def update(
        params: PyTree, opt_state: PyTree, batch: RolloutBatch, reference_params: PyTree = None
    ) -> tuple[PyTree, PyTree, UpdateMetrics]:
        checks.require_type(RolloutBatch, "a RolloutBatch, as of RolloutBatch.of", batch=batch)
        chex.assert_tree_shape_prefix(batch, batch.index.shape)
        prompts = _mini_batch_rows(config, batch)
        steps = config.epochs * (batch.index.shape[0] // prompts)
        old = None if loss.recompute_old else batch.log_probs
        if loss.recompute_old and steps > 1:
            old = _evaluate(log_prob_fn, params, batch, config, prompts)
        reference = None
        if loss.kl_coefficient != 0:
            if reference_params is None:
                raise ValueError(
                    f"kl_coefficient={loss.kl_coefficient} needs reference_params; "
                    "pass them, or set kl_coefficient=0"
                )
            reference = _evaluate(log_prob_fn, reference_params, batch, config, prompts)
        rows = batches.split_rows(_Rows(batch, old, reference), prompts)

        def epoch(carry, _):
            return jax.lax.scan(step, carry, rows)

        carry, results = jax.lax.scan(epoch, (params, opt_state), None, length=config.epochs)
        flat = jax.tree.map(lambda x: x.reshape(steps), results)
        groups = jnp.sum((batches.numerator_weight(batch) != 0).astype(jnp.float32))
        return (*carry, _summarize(flat, groups, steps))

    return update


class _StepResult(NamedTuple):
    """Outcome of one optimizer step."""

    loss: Array
    grad_norm: Array
    sums: losses.LossMetrics
    nonfinite: Array
    empty: Array


def _make_step(config: GRPOConfig, log_prob_fn: LogProbFunction, optimizer):
    """One optimizer step on one mini-batch, in the form ``lax.scan`` takes."""
    value_and_grad = jax.value_and_grad(_make_loss(config.loss, log_prob_fn), has_aux=True)

    def step(carry, rows: _Rows):
        params, opt_state = carry
        micro = batches.split_micro(_weigh(rows, config.loss), config.micro_batch, batch_ways())

        def accumulate(total, part):
            (loss, sums), grads = value_and_grad(params, part)
            return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, (loss, grads)), sums

        # At least float32, whatever the parameters are: sums of many small gradients.
        zeros = jax.tree.map(
            lambda p: jnp.zeros_like(p, dtype=np.promote_types(p.dtype, np.float32)), params
        )
        start = (jnp.zeros((), jnp.float32), zeros)
        (loss, grads), sums = jax.lax.scan(accumulate, start, micro)
        sums = losses.merge(sums)
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
        updates, new_state = optimizer.update(grads, opt_state, params)
        nonfinite = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        empty = sums.trained_tokens == 0
        # A select per leaf, not a cond: it fuses into the optimizer's own pass over memory.
        carry = jax.tree.map(
            lambda new, kept: jnp.where(nonfinite | empty, kept, new),
            (optax.apply_updates(params, updates), new_state),
            carry,
        )
        result = _StepResult(loss, norm.astype(jnp.float32), sums, nonfinite, empty & ~nonfinite)
        return carry, result

    return step


def _make_loss(config: LossConfig, log_prob_fn: LogProbFunction):
    """Loss of one micro-batch: its share of the mini-batch's."""

    def loss(params, part: MicroBatch):
        log_probs, entropy = log_prob_fn(params, *_inputs(part))
        old = log_probs if part.old_log_probs is None else part.old_log_probs
        reference = part.reference_log_probs
        return losses.policy_loss(
            _flat(log_probs),
            _flat(entropy),
            _flat(old),
            _flat(part.sampler_log_probs),
            part.advantages.reshape(-1),
            _flat(part.mask),
            _flat(part.token_weights),
            config,
            None if reference is None else _flat(reference),
        )

    return loss


def _inputs(part: MicroBatch) -> tuple:
    """What a ``LogProbFunction`` takes after the parameters."""
    shown = () if part.images is None else (part.images,)
    return (part.prompt, part.prompt_mask, part.tokens, part.mask, *shown)


def _flat(values: Array) -> Array:
    """``[b, g, T]`` to ``[S, T]``."""
    return values.reshape(-1, values.shape[-1])


def _weigh(rows: _Rows, config: LossConfig) -> MicroBatch:
    """A mini-batch with the weight of every token in it, denominators included."""
    batch, shape = rows.batch, rows.batch.tokens.shape
    mask = batches.valid_tokens(batch)
    weight = batches.numerator_weight(batch)
    counted = (batch.index >= 0) if config.count_uninformative else (weight != 0)
    shares = config.aggregate(_flat(mask), jnp.repeat(counted, shape[1]))
    chex.assert_shape(shares, (shape[0] * shape[1], shape[2]))
    return MicroBatch(
        prompt=batch.prompt,
        prompt_mask=batch.prompt_mask,
        tokens=batch.tokens,
        mask=mask,
        sampler_log_probs=batch.log_probs,
        advantages=batch.advantages,
        token_weights=shares.reshape(shape) * weight[:, None, None],
        old_log_probs=rows.old,
        reference_log_probs=rows.reference,
        images=batch.images,
    )


def _evaluate(log_prob_fn, params, batch: RolloutBatch, config: GRPOConfig, rows: int) -> Array:
    """Log-probabilities of the whole batch, float32[B, G, T], one micro-batch at a time."""
    sequences = config.micro_batch or rows * batch.tokens.shape[1]
    whole = _weigh(_Rows(batch, None, None), config.loss)

    def one(part: MicroBatch) -> Array:
        return log_prob_fn(params, *_inputs(part))[0]

    values = jax.lax.map(one, batches.split_micro(whole, sequences, batch_ways()))
    return jax.lax.stop_gradient(batches.join_micro(values, batch.tokens.shape))


def _mini_batch_rows(config: GRPOConfig, batch: RolloutBatch) -> int:
    """Rows of one optimizer step; checks the batch against the settings.

    A mini-batch is padded to a multiple of the devices, and so real prompts, which come before the
    padding, are divided as on one device. Groups of unequal sizes come as rows of one rollout, G of
    them for each prompt of a batch.
    """
    total, group = batch.tokens.shape[:2]
    if group not in (1, config.rollouts_per_prompt):
        raise ValueError(
            f"the batch has {group} rollouts per prompt, the settings say "
            f"rollouts_per_prompt={config.rollouts_per_prompt}: make them equal, or give single "
            "rollouts"
        )
    if config.mini_batch is None:
        return total
    ways, size = batch_ways(), config.rollouts_per_prompt // group
    rows = batches.round_up(config.mini_batch, ways) * size
    if total % rows != 0:
        raise ValueError(
            f"mini_batch={config.mini_batch} takes {rows // size} of the batch's {total // size} "
            f"prompts on {ways} devices, which does not divide them: use a divisor of the prompts, "
            "or None, and pad the batch to dpsjax.grpo.batch_rows"
        )
    return rows


def _summarize(results: _StepResult, groups: Array, steps: int) -> UpdateMetrics:
    """Means over the steps of one update; fields of ``results`` are [steps]."""
    policy = losses.average(losses.merge(results.sums))
    first = losses.average(jax.tree.map(lambda x: x[0], results.sums))

    def count(flags: Array) -> Array:
        return jnp.sum(flags.astype(jnp.float32))

    return UpdateMetrics(
        loss=jnp.mean(results.loss),
        grad_norm=jnp.mean(results.grad_norm),
        grad_norm_max=jnp.max(results.grad_norm),
        policy=policy._replace(mismatch=first.mismatch, mismatch_max=first.mismatch_max),
        groups=groups,
        steps=jnp.asarray(steps, jnp.float32),
        skipped_nonfinite=count(results.nonfinite),
        skipped_empty=count(results.empty),
    )
