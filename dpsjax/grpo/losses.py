"""The clipped policy-gradient loss on token log-probabilities: a weighted sum over tokens.

``S`` counts sequences: the ``B * G`` rollouts of a batch, or a part of them.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from dpsjax.grpo.config import LossConfig
from dpsjax.grpo.kl import MAX_LOG_RATIO
from dpsjax.types import Array, Bool, Float


class LossMetrics(NamedTuple):
    """Sums (or maxima) over all valid tokens; :func:`merge` then :func:`average` them.

    They cover every token under ``mask``, uninformative groups included, so that selection does
    not colour them; ``trained_tokens`` and the clip counts are of tokens that carry weight.

    Attributes:
        tokens: Valid tokens.
        trained_tokens: Tokens whose weight is not zero.
        ratio: Importance ratio of the current to the old policy.
        ratio_max: Its maximum.
        clipped_high: Tokens with positive advantage whose ratio is above ``1 + clip_high``.
        clipped_low: Tokens with negative advantage whose ratio is below ``1 - clip_low``.
        dual_clipped: Tokens with negative advantage whose ratio is above ``dual_clip``.
        kl: KL estimate to the reference (0 without one).
        entropy: Entropy of the policy, nats.
        mismatch: ``|log pi - log sampler|``, nats: on the first mini-batch, the error between
            the sampler and the recomputation; later also the policy's own movement.
        mismatch_max: Its maximum.
        sampler_weight: Truncated importance weight (1 where the correction is off).
    """

    tokens: Array
    trained_tokens: Array
    ratio: Array
    ratio_max: Array
    clipped_high: Array
    clipped_low: Array
    dual_clipped: Array
    kl: Array
    entropy: Array
    mismatch: Array
    mismatch_max: Array
    sampler_weight: Array


def clipped_objective(
    ratio: Float[Array, "S T"], advantages: Float[Array, "S T"], config: LossConfig
) -> Float[Array, "S T"]:
    """The clipped surrogate, as a loss per token.

    ``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` (PPO, arXiv 1707.06347, eq. 7, with
    DAPO's two sides), and for ``A < 0`` no more than ``-A dual_clip`` (Ye et al. 2020, arXiv
    1912.09729, eq. 7).

    Args:
        ratio: Probability under the policy over that under the old policy, float[S, T].
        advantages: float[S, T].
        config: Gives the clips.

    Returns:
        Loss per token, float[S, T].
    """
    clipped = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    loss = jnp.maximum(-advantages * ratio, -advantages * clipped)
    if config.dual_clip is None:
        return loss
    return jnp.where(advantages < 0, jnp.minimum(loss, -advantages * config.dual_clip), loss)


def policy_loss(
    log_probs: Float[Array, "S T"],
    entropy: Float[Array, "S T"],
    old_log_probs: Float[Array, "S T"],
    sampler_log_probs: Float[Array, "S T"],
    advantages: Float[Array, "S"],
    mask: Bool[Array, "S T"],
    token_weights: Float[Array, "S T"],
    config: LossConfig,
    reference_log_probs: Float[Array, "S T"] | None = None,
) -> tuple[Float[Array, ""], LossMetrics]:
    """GRPO's loss of a micro-batch: its share of the mini-batch's sum.

    ``sum_st w_st (u_st L_clip_st + kl_coefficient KL_st - entropy_coefficient H_st)``, where
    ``u = min(old / sampler, cap)`` corrects for a sampler whose probabilities differ from the
    recomputed ones (truncated importance sampling) and is 1 without a cap.

    Args:
        log_probs: Of the sampled tokens under the policy being trained, float[S, T].
        entropy: Entropy of each token's distribution, nats, float[S, T].
        old_log_probs: Under the policy before the update, float[S, T]; no gradient flows.
        sampler_log_probs: As recorded while sampling, float[S, T].
        advantages: float[S].
        mask: Generated tokens, bool[S, T]; what the others hold is never read.
        token_weights: From an ``Aggregation`` over the *whole* mini-batch, float[S, T].
        config: Clips and coefficients.
        reference_log_probs: Under the reference policy, float[S, T]; without it there is no KL.

    Returns:
        The loss, a scalar in the dtype of ``log_probs``, and the metrics' sums.
    """
    chex.assert_equal_shape([log_probs, entropy, mask])  # what a policy may have got wrong
    # Selected before any arithmetic, so that garbage outside the mask reaches neither value nor
    # gradient.
    new = jnp.where(mask, log_probs, 0)
    old = jax.lax.stop_gradient(jnp.where(mask, old_log_probs, 0))
    sampler = jnp.where(mask, sampler_log_probs, 0)
    ratio = _bounded_exp(new - old)
    weights = jnp.where(mask, token_weights, 0).astype(new.dtype)
    gains = jnp.where(weights != 0, advantages[:, None].astype(new.dtype), 0)
    per_token = clipped_objective(ratio, gains, config)
    sampler_weight = jnp.ones_like(new)
    if config.sampler_ratio_cap is not None:
        sampler_weight = jnp.minimum(_bounded_exp(old - sampler), config.sampler_ratio_cap)
        per_token = per_token * sampler_weight
    kl = jnp.zeros_like(new)
    if reference_log_probs is not None:
        kl = config.estimate_kl(new, jnp.where(mask, reference_log_probs, 0))
    spread = jnp.where(mask, entropy, 0)
    # Static tests: a term that is off must not cost a backward pass through what it weighs.
    if config.kl_coefficient != 0:
        per_token = per_token + config.kl_coefficient * kl
    if config.entropy_coefficient != 0:
        per_token = per_token - config.entropy_coefficient * spread
    loss = jnp.sum(jnp.where(weights != 0, per_token * weights, 0))
    mismatch = jnp.abs(new - sampler)
    metrics = LossMetrics(
        tokens=_total(mask),
        trained_tokens=_total(weights != 0),
        ratio=_total(mask, ratio),
        ratio_max=jnp.max(jnp.where(mask, ratio, 0)).astype(jnp.float32),
        kl=_total(mask, kl),
        entropy=_total(mask, spread),
        mismatch=_total(mask, mismatch),
        mismatch_max=jnp.max(mismatch).astype(jnp.float32),
        sampler_weight=_total(mask, sampler_weight),
        **_clip_counts(ratio, gains, mask, config),
    )
    return loss, jax.lax.stop_gradient(metrics)


def merge(stacked: LossMetrics) -> LossMetrics:
    """Combine metrics stacked along a leading axis: sums are added, maxima maximised.

    Args:
        stacked: Metrics whose fields are float32[M, ...].

    Returns:
        Metrics whose fields are float32[...].
    """
    added = jax.tree.map(lambda field: jnp.sum(field, axis=0), stacked)
    return added._replace(
        ratio_max=jnp.max(stacked.ratio_max, axis=0),
        mismatch_max=jnp.max(stacked.mismatch_max, axis=0),
    )


def average(sums: LossMetrics) -> LossMetrics:
    """Divide the sums by the number of valid tokens; counts and maxima stay as they are.

    Args:
        sums: Metrics as :func:`policy_loss` or :func:`merge` return them.

    Returns:
        Means per valid token.
    """
    tokens = jnp.maximum(sums.tokens, 1)
    means = jax.tree.map(lambda field: field / tokens, sums)
    return means._replace(
        tokens=sums.tokens,
        trained_tokens=sums.trained_tokens,
        ratio_max=sums.ratio_max,
        mismatch_max=sums.mismatch_max,
    )


def _bounded_exp(log_ratio: Array) -> Array:
    return jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def _clip_counts(
    ratio: Array, advantages: Array, mask: Array, config: LossConfig
) -> dict[str, Array]:
    """Tokens whose gradient each clip removes."""
    bound = jnp.inf if config.dual_clip is None else config.dual_clip
    above, below = 1.0 + config.clip_high, 1.0 - config.clip_low
    return {
        "clipped_high": _total(mask & (advantages > 0) & (ratio > above)),
        "clipped_low": _total(mask & (advantages < 0) & (ratio < below)),
        "dual_clipped": _total(mask & (advantages < 0) & (ratio > bound)),
    }


def _total(mask: Array, values: Array | None = None) -> Array:
    """Sum of ``values`` (default 1) under the mask, float32."""
    kept = mask if values is None else jnp.where(mask, values, 0)
    return jnp.sum(kept.astype(jnp.float32))
