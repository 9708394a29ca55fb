"""The update: one batch of rollouts in, new parameters out. Pure, static shapes, one trace.

It knows no model: the policy enters as a ``LogProbFunction``. Every mini-batch is one
optimizer step; its gradient is the sum over micro-batches, each weighed with the denominators of
the whole mini-batch, so that the division into micro-batches changes rounding alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpsjax import checks
from dpsjax.grpo import batch as batches
from dpsjax.grpo import losses
from dpsjax.grpo.batch import MicroBatch, RolloutBatch
from dpsjax.grpo.config import GRPOConfig
from dpsjax.policy.sharding import batch_ways
from dpsjax.types import Array, PyTree

# (params, prompt int32[b, P], prompt_mask bool[b, P], tokens int32[b, g, T], mask bool[b, g, T])
# -> (log_probs float32[b, g, T], entropy float32[b, g, T]). A prompt comes once for its g
# responses, so that the policy can compute it once.
LogProbFunction = Callable[[PyTree, Array, Array, Array, Array], tuple[Array, Array]]


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


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Choices of function and of bookkeeping in the loss.

    Attributes:
        aggregate: Token weights: ``token_mean``, ``sequence_mean`` or ``constant_length``.
        kl_estimator: ``k1`` or ``k3``.
        recompute_old: Take the old log-probabilities from the parameters before the update
            instead of the sampler's record. With a single optimizer step they are those of the
            same pass, at no cost; otherwise one more forward pass over the batch.
        sampler_ratio_cap: Cap of the truncated importance weight ``old / sampler``; None for no
            correction. Needs ``recompute_old``, else both are the same.
        count_uninformative: Keep groups without variance, and vetoed ones, in the denominator.
            They never enter the numerator: neither advantage, nor KL, nor entropy.
    """

    aggregate: losses.Aggregation = losses.token_mean
    kl_estimator: losses.KLEstimator = losses.k3
    recompute_old: bool = False
    sampler_ratio_cap: float | None = None
    count_uninformative: bool = False

    def __post_init__(self) -> None:
        """Refuse a correction that could not act.

        Raises:
            TypeError: A choice is no function, or ``sampler_ratio_cap`` no number.
            ValueError: ``sampler_ratio_cap`` is out of range or lacks ``recompute_old``.
        """
        checks.require_callable(aggregate=self.aggregate, kl_estimator=self.kl_estimator)
        checks.require_type(
            bool,
            "True or False",
            recompute_old=self.recompute_old,
            count_uninformative=self.count_uninformative,
        )
        cap = self.sampler_ratio_cap
        checks.require_real(**checks.given(sampler_ratio_cap=cap))
        if cap is not None and not cap > 0:
            raise ValueError(f"sampler_ratio_cap={cap!r} must be above 0, or None")
        if cap is not None and not self.recompute_old:
            raise ValueError(
                f"sampler_ratio_cap={cap!r} needs recompute_old=True: with the sampler's own "
                "log-probabilities as the old ones the ratio it truncates is 1"
            )


DEFAULT_VARIANT = Variant()

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
    variant: Variant = DEFAULT_VARIANT,
) -> UpdateFunction:
    """Build the update of one batch of rollouts.

    Args:
        config: Settings.
        log_prob_fn: The policy.
        optimizer: For example :func:`dpsjax.grpo.optimizer.make_optimizer`'s.
        variant: Aggregation, KL estimator and the treatment of old log-probabilities.

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
    checks.require_type(Variant, "a Variant", variant=variant)
    checks.require_type(optax.GradientTransformation, "an optax optimizer", optimizer=optimizer)
    checks.require_callable(log_prob_fn=log_prob_fn)
    step = _make_step(config, log_prob_fn, optimizer, variant)

    def update(
        params: PyTree, opt_state: PyTree, batch: RolloutBatch, reference_params: PyTree = None
    ) -> tuple[PyTree, PyTree, UpdateMetrics]:
        _require_batch(batch)
        prompts = _mini_batch_prompts(config, batch)
        steps = config.epochs * (batch.index.shape[0] // prompts)
        old = None if variant.recompute_old else batch.log_probs
        if variant.recompute_old and steps > 1:
            old = _evaluate(log_prob_fn, params, batch, config, prompts)
        reference = None
        if config.kl_coefficient != 0:
            if reference_params is None:
                raise ValueError(
                    f"kl_coefficient={config.kl_coefficient} needs reference_params; "
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


def _require_batch(batch: RolloutBatch) -> None:
    """Refuse fields of another kind, or that do not fit each other."""
    checks.require_type(RolloutBatch, "a RolloutBatch", batch=batch)
    checks.require_arrays(
        index=(batch.index, "int B"),
        prompt=(batch.prompt, "int B P"),
        prompt_mask=(batch.prompt_mask, "bool B P"),
        tokens=(batch.tokens, "int B G T"),
        mask=(batch.mask, "bool B G T"),
        log_probs=(batch.log_probs, "float B G T"),
        advantages=(batch.advantages, "float B G"),
        informative=(batch.informative, "bool B"),
        accept=(batch.accept, "bool B"),
        weight=(batch.weight, "float B"),
    )


class _StepResult(NamedTuple):
    """Outcome of one optimizer step."""

    loss: Array
    grad_norm: Array
    sums: losses.LossMetrics
    nonfinite: Array
    empty: Array


def _make_step(config, log_prob_fn, optimizer, variant):
    """One optimizer step on one mini-batch, in the form ``lax.scan`` takes."""
    value_and_grad = jax.value_and_grad(_make_loss(config, log_prob_fn, variant), has_aux=True)

    def step(carry, rows: _Rows):
        params, opt_state = carry
        micro = batches.split_micro(_weigh(rows, variant), config.micro_batch, batch_ways())

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
        norm = optax.global_norm(grads)
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


def _make_loss(config, log_prob_fn, variant):
    """Loss of one micro-batch: its share of the mini-batch's."""

    def loss(params, part: MicroBatch):
        log_probs, entropy = log_prob_fn(
            params, part.prompt, part.prompt_mask, part.tokens, part.mask
        )
        old = log_probs if part.old_log_probs is None else part.old_log_probs
        reference = part.reference_log_probs
        return losses.policy_loss(
            _flat(log_probs),
            _flat(old),
            _flat(part.sampler_log_probs),
            part.advantages.reshape(-1),
            _flat(part.mask),
            _flat(part.token_weights),
            entropy=_flat(entropy),
            reference_log_probs=None if reference is None else _flat(reference),
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            entropy_coefficient=config.entropy_coefficient,
            kl_coefficient=config.kl_coefficient,
            kl_estimator=variant.kl_estimator,
            sampler_ratio_cap=variant.sampler_ratio_cap,
        )

    return loss


def _flat(values: Array) -> Array:
    """``[b, g, T]`` to ``[S, T]``."""
    return values.reshape(-1, values.shape[-1])


def _weigh(rows: _Rows, variant: Variant) -> MicroBatch:
    """A mini-batch with the weight of every token in it, denominators included."""
    batch, shape = rows.batch, rows.batch.tokens.shape
    mask = batches.valid_tokens(batch)
    weight = batches.numerator_weight(batch)
    counted = (batch.index >= 0) if variant.count_uninformative else (weight != 0)
    shares = variant.aggregate(_flat(mask), jnp.repeat(counted, shape[1])).reshape(shape)
    return MicroBatch(
        prompt=batch.prompt,
        prompt_mask=batch.prompt_mask,
        tokens=batch.tokens,
        mask=mask,
        sampler_log_probs=batch.log_probs,
        advantages=batch.advantages,
        token_weights=shares * weight[:, None, None],
        old_log_probs=rows.old,
        reference_log_probs=rows.reference,
    )


def _evaluate(log_prob_fn, params, batch: RolloutBatch, config, prompts: int) -> Array:
    """Log-probabilities of the whole batch, float32[B, G, T], one micro-batch at a time."""
    sequences = config.micro_batch or prompts * batch.tokens.shape[1]
    whole = _weigh(_Rows(batch, None, None), DEFAULT_VARIANT)

    def one(part: MicroBatch) -> Array:
        return log_prob_fn(params, part.prompt, part.prompt_mask, part.tokens, part.mask)[0]

    values = jax.lax.map(one, batches.split_micro(whole, sequences, batch_ways()))
    return jax.lax.stop_gradient(batches.join_micro(values, batch.tokens.shape))


def _mini_batch_prompts(config: GRPOConfig, batch: RolloutBatch) -> int:
    """Rows of one optimizer step; checks the batch against the settings.

    Groups of unequal sizes come as rows of one rollout, G of them for each prompt of a batch.
    """
    total, group = batch.tokens.shape[:2]
    if group not in (1, config.rollouts_per_prompt):
        raise ValueError(
            f"the batch has {group} rollouts per prompt, the settings say "
            f"rollouts_per_prompt={config.rollouts_per_prompt}: make them equal, or give single "
            "rollouts"
        )
    prompts = total
    if config.mini_batch is not None:
        prompts = config.mini_batch * (config.rollouts_per_prompt // group)
    if total % prompts != 0:
        raise ValueError(
            f"mini_batch={config.mini_batch} does not divide the batch of "
            f"{total * group // config.rollouts_per_prompt} prompts: use a divisor, or None"
        )
    return prompts


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
