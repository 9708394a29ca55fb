"""The clipped policy-gradient loss on token log-probabilities, with explicit denominators.

The loss is a plain weighted sum over tokens, ``sum(token_weights * per_token)``. The weights
carry the whole normalisation and are computed once, over the full mini-batch, by one of
:func:`token_mean`, :func:`sequence_mean`, :func:`constant_length`. So the sums of micro-batches,
of gradient-accumulation steps and of shards add up to exactly the loss of the whole, and a token
of weight 0 contributes nothing to it.

``S`` counts sequences: the ``B * G`` rollouts of a batch, or a part of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Bool, Float

# exp(20) is about 5e8: far beyond any clip, and still finite in float32.
MAX_LOG_RATIO = 20.0

# (log_probs float[S, T], reference float[S, T]) -> float[S, T]
KLEstimator = Callable[[Array, Array], Array]

# (mask bool[S, T], counted bool[S]) -> token weights float32[S, T]. `counted` names the sequences
# of the denominator. Tokens of the others get their weight too: multiply by a float[S] to take
# sequences out of the numerator.
Aggregation = Callable[[Array, Array], Array]


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


def token_mean(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Every token weighs the same (DAPO, arXiv 2503.14476, equation 12).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S].

    Returns:
        ``mask / number of counted tokens``, float32[S, T].

    >>> mask = jnp.array([[True, True, True], [True, False, False]])
    >>> token_mean(mask, jnp.array([True, True])).tolist()
    [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]
    """
    _require_mask(mask, counted)
    kept = mask.astype(jnp.float32)
    total = jnp.sum(jnp.where(counted[:, None], kept, 0))
    return kept / jnp.maximum(total, 1)


def sequence_mean(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Mean over the tokens of a sequence, then over sequences (GRPO, arXiv 2402.03300, eq. 3).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S]; sequences without tokens never count.

    Returns:
        ``mask / (length * number of counted sequences)``, float32[S, T].
    """
    _require_mask(mask, counted)
    kept = mask.astype(jnp.float32)
    length = jnp.sum(kept, axis=1)
    sequences = jnp.sum((counted & (length > 0)).astype(jnp.float32))
    return kept / (jnp.maximum(length, 1) * jnp.maximum(sequences, 1))[:, None]


def constant_length(mask: Bool[Array, "S T"], counted: Bool[Array, "S"]) -> Float[Array, "S T"]:
    """Dr. GRPO: divide by the number of sequences times the constant T (arXiv 2503.20783).

    Args:
        mask: Generated tokens, bool[S, T].
        counted: Sequences in the denominator, bool[S]; sequences without tokens never count.

    Returns:
        ``mask / (T * number of counted sequences)``, float32[S, T].
    """
    _require_mask(mask, counted)
    kept = mask.astype(jnp.float32)
    sequences = jnp.sum((counted & jnp.any(mask, axis=1)).astype(jnp.float32))
    return kept / (jnp.maximum(sequences, 1) * mask.shape[1])


def _require_mask(mask: Array, counted: Array) -> None:
    checks.require_arrays(mask=(mask, "bool S T"), counted=(counted, "bool S"))


def k1(log_probs: Float[Array, "S T"], reference: Float[Array, "S T"]) -> Float[Array, "S T"]:
    """``log pi - log ref``: unbiased as a value, can be negative.

    Its gradient as a loss is the score function, zero in expectation on fresh samples; as a
    penalty prefer :func:`k3`. Source: Schulman 2020, "Approximating KL divergence".

    Args:
        log_probs: Of the policy, float[S, T].
        reference: Of the reference policy, float[S, T].

    Returns:
        One estimate per token, float[S, T].
    """
    _require_pair(log_probs, reference)
    return log_probs - reference


def k3(log_probs: Float[Array, "S T"], reference: Float[Array, "S T"]) -> Float[Array, "S T"]:
    """``ref / pi - log(ref / pi) - 1``: unbiased, never negative, low variance (GRPO, eq. 4).

    Args:
        log_probs: Of the policy, float[S, T].
        reference: Of the reference policy, float[S, T].

    Returns:
        One estimate per token, float[S, T].
    """
    _require_pair(log_probs, reference)
    difference = jnp.clip(reference - log_probs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return jnp.expm1(difference) - difference


def _require_pair(log_probs: Array, reference: Array) -> None:
    checks.require_arrays(log_probs=(log_probs, "float S T"), reference=(reference, "float S T"))


def clipped_objective(
    ratio: Float[Array, "S T"],
    advantages: Float[Array, "S T"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> Float[Array, "S T"]:
    """The clipped surrogate, as a loss per token.

    ``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` (PPO, arXiv 1707.06347, eq. 7, with
    DAPO's two sides), and for ``A < 0`` no more than ``-A dual_clip`` (Ye et al. 2020, arXiv
    1912.09729, eq. 7).

    Args:
        ratio: Probability under the policy over that under the old policy, float[S, T].
        advantages: float[S, T].
        clip_low: Distance of the lower clip from 1.
        clip_high: Distance of the upper clip from 1.
        dual_clip: Upper bound of the ratio for negative advantages; None for no bound.

    Returns:
        Loss per token, float[S, T].

    Raises:
        TypeError: An argument is no array of floats, or no number.
        ValueError: Shapes do not fit, or a clip is not above 0.
    """
    checks.require_arrays(ratio=(ratio, "float S T"), advantages=(advantages, "float S T"))
    _require_clips(clip_low, clip_high, dual_clip)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = jnp.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is None:
        return loss
    return jnp.where(advantages < 0, jnp.minimum(loss, -advantages * dual_clip), loss)


def policy_loss(
    log_probs: Float[Array, "S T"],
    old_log_probs: Float[Array, "S T"],
    sampler_log_probs: Float[Array, "S T"],
    advantages: Float[Array, "S"],
    mask: Bool[Array, "S T"],
    token_weights: Float[Array, "S T"],
    *,
    entropy: Float[Array, "S T"] | None = None,
    reference_log_probs: Float[Array, "S T"] | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 10.0,
    entropy_coefficient: float = 0.001,
    kl_coefficient: float = 0.0,
    kl_estimator: KLEstimator = k3,
    sampler_ratio_cap: float | None = None,
) -> tuple[Float[Array, ""], LossMetrics]:
    """GRPO's loss of a micro-batch: its share of the mini-batch's sum.

    ``sum_st w_st (u_st L_clip_st + kl_coefficient KL_st - entropy_coefficient H_st)``, where
    ``u = min(old / sampler, cap)`` corrects for a sampler whose probabilities differ from the
    recomputed ones (truncated importance sampling) and is 1 without a cap. Defaults are the
    released DPS settings.

    Args:
        log_probs: Of the sampled tokens under the policy being trained, float[S, T].
        old_log_probs: Under the policy before the update, float[S, T]; no gradient flows.
        sampler_log_probs: As recorded while sampling, float[S, T].
        advantages: float[S].
        mask: Generated tokens, bool[S, T]; what the others hold is never read.
        token_weights: From an ``Aggregation`` over the *whole* mini-batch, float[S, T].
        entropy: Entropy of each token's distribution, nats, float[S, T].
        reference_log_probs: Under the reference policy, float[S, T].
        clip_low: Distance of the lower clip from 1.
        clip_high: Distance of the upper clip from 1.
        dual_clip: Upper bound of the ratio for negative advantages; None for none.
        entropy_coefficient: Weight of the entropy bonus.
        kl_coefficient: Weight of the KL to the reference.
        kl_estimator: :func:`k1` or :func:`k3`, or any function of that shape.
        sampler_ratio_cap: Cap of the truncated importance weight; None switches it off.

    Returns:
        The loss, a scalar in the dtype of ``log_probs``, and the metrics' sums.

    Raises:
        TypeError: An argument is no array, or of another kind.
        ValueError: Shapes do not fit, a number is out of range, or a coefficient is not zero and
            what it weighs is missing.
    """
    checks.require_arrays(
        log_probs=(log_probs, "float S T"),
        old_log_probs=(old_log_probs, "float S T"),
        sampler_log_probs=(sampler_log_probs, "float S T"),
        advantages=(advantages, "float S"),
        mask=(mask, "bool S T"),
        token_weights=(token_weights, "float S T"),
        **{
            name: (value, "float S T")
            for name, value in checks.given(
                entropy=entropy, reference_log_probs=reference_log_probs
            ).items()
        },
    )
    _require_clips(clip_low, clip_high, dual_clip)
    checks.require_scalar(
        0.0,
        jnp.inf,
        entropy_coefficient=entropy_coefficient,
        kl_coefficient=kl_coefficient,
        **checks.given(sampler_ratio_cap=sampler_ratio_cap),
    )
    checks.require_callable(kl_estimator=kl_estimator)
    _check_terms(kl_coefficient, reference_log_probs, entropy_coefficient, entropy)
    # Selected before any arithmetic, so that garbage outside the mask reaches neither value nor
    # gradient.
    new = jnp.where(mask, log_probs, 0)
    old = jax.lax.stop_gradient(jnp.where(mask, old_log_probs, 0))
    sampler = jnp.where(mask, sampler_log_probs, 0)
    clips = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    ratio = _bounded_exp(new - old)
    weights = jnp.where(mask, token_weights, 0).astype(new.dtype)
    gains = jnp.where(weights != 0, advantages[:, None].astype(new.dtype), 0)
    per_token = clipped_objective(ratio, gains, **clips)
    sampler_weight = jnp.ones_like(new)
    if sampler_ratio_cap is not None:
        sampler_weight = jnp.minimum(_bounded_exp(old - sampler), sampler_ratio_cap)
        per_token = per_token * sampler_weight
    kl = jnp.zeros_like(new)
    if reference_log_probs is not None:
        kl = kl_estimator(new, jnp.where(mask, reference_log_probs, 0))
    spread = jnp.zeros_like(new) if entropy is None else jnp.where(mask, entropy, 0)
    # Static tests: a term that is off must not cost a backward pass through what it weighs.
    if kl_coefficient != 0:
        per_token = per_token + kl_coefficient * kl
    if entropy_coefficient != 0:
        per_token = per_token - entropy_coefficient * spread
    loss = jnp.sum(jnp.where(weights != 0, per_token * weights, 0))
    measured = {"kl": kl, "entropy": spread, "sampler_weight": sampler_weight}
    counts = _clip_counts(ratio, gains, mask, **clips)
    mismatch = jnp.abs(new - sampler)
    metrics = LossMetrics(
        tokens=_total(mask),
        trained_tokens=_total(weights != 0),
        ratio=_total(mask, ratio),
        ratio_max=jnp.max(jnp.where(mask, ratio, 0)).astype(jnp.float32),
        mismatch=_total(mask, mismatch),
        mismatch_max=jnp.max(mismatch).astype(jnp.float32),
        **counts,
        **{name: _total(mask, values) for name, values in measured.items()},
    )
    return loss, jax.lax.stop_gradient(metrics)


def merge(stacked: LossMetrics) -> LossMetrics:
    """Combine metrics stacked along a leading axis: sums are added, maxima maximised.

    Args:
        stacked: Metrics whose fields are float32[M, ...].

    Returns:
        Metrics whose fields are float32[...].

    Raises:
        TypeError: ``stacked`` is something else.
    """
    checks.require_type(LossMetrics, "LossMetrics", stacked=stacked)
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

    Raises:
        TypeError: ``sums`` is something else.
    """
    checks.require_type(LossMetrics, "LossMetrics", sums=sums)
    tokens = jnp.maximum(sums.tokens, 1)
    means = jax.tree.map(lambda field: field / tokens, sums)
    return means._replace(
        tokens=sums.tokens,
        trained_tokens=sums.trained_tokens,
        ratio_max=sums.ratio_max,
        mismatch_max=sums.mismatch_max,
    )


def _require_clips(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    checks.require_scalar(0.0, 1.0, clip_low=clip_low)
    checks.require_real(clip_high=clip_high, **checks.given(dual_clip=dual_clip))
    checks.require_setting(clip_high > 0, "clip_high", clip_high, "above 0")
    fits = dual_clip is None or dual_clip > 1
    checks.require_setting(fits, "dual_clip", dual_clip, "above 1, or None")


def _check_terms(
    kl_coefficient: float,
    reference_log_probs: Array | None,
    entropy_coefficient: float,
    entropy: Array | None,
) -> None:
    """Refuse a coefficient whose term is missing."""
    if kl_coefficient != 0 and reference_log_probs is None:
        raise ValueError(
            f"kl_coefficient={kl_coefficient} needs reference_log_probs (reference parameters in "
            "the update); pass them, or set kl_coefficient=0"
        )
    if entropy_coefficient != 0 and entropy is None:
        raise ValueError(
            f"entropy_coefficient={entropy_coefficient} needs entropy; "
            "pass it, or set entropy_coefficient=0"
        )


def _bounded_exp(log_ratio: Array) -> Array:
    return jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def _clip_counts(
    ratio: Array,
    advantages: Array,
    mask: Array,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> dict[str, Array]:
    """Tokens whose gradient each clip removes."""
    bound = jnp.inf if dual_clip is None else dual_clip
    return {
        "clipped_high": _total(mask & (advantages > 0) & (ratio > 1.0 + clip_high)),
        "clipped_low": _total(mask & (advantages < 0) & (ratio < 1.0 - clip_low)),
        "dual_clipped": _total(mask & (advantages < 0) & (ratio > bound)),
    }


def _total(mask: Array, values: Array | None = None) -> Array:
    """Sum of ``values`` (default 1) under the mask, float32."""
    kept = mask if values is None else jnp.where(mask, values, 0)
    return jnp.sum(kept.astype(jnp.float32))
