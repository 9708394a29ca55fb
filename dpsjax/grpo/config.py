"""The settings of GRPO, checked when they are made; the command line is made of them too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from dpsjax import checks
from dpsjax.grpo import advantages, aggregation, kl
from dpsjax.grpo.advantages import AdvantageFunction, Advantages, BeliefAdvantages
from dpsjax.grpo.aggregation import Aggregation
from dpsjax.grpo.kl import KLEstimator

# What the names below stand for. In code, a function of one's own may stand for a name.
ADVANTAGES: Mapping[str, AdvantageFunction | BeliefAdvantages] = {
    "group-normalized": advantages.group_normalized,
    "centered": advantages.centered,
    "leave-one-out": advantages.leave_one_out,
    "denoised": advantages.denoised,
}
AGGREGATIONS: Mapping[str, Aggregation] = {
    "token-mean": aggregation.token_mean,
    "sequence-mean": aggregation.sequence_mean,
    "constant-length": aggregation.constant_length,
}
KL_ESTIMATORS: Mapping[str, KLEstimator] = {"k1": kl.k1, "k3": kl.k3}


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss. Its numbers are those of the released DPS scripts."""

    advantages: (
        Literal["group-normalized", "centered", "leave-one-out", "denoised"]
        | Annotated[Callable[..., Advantages], tyro.conf.Suppress]
    ) = "group-normalized"
    """Reward less the group's mean, by its deviation (GRPO), as it is (Dr. GRPO), or against the
    mean of the others (RLOO); or MaPP's: GRPO's, averaged under the Beta belief about the prompt,
    which the selector keeps or else is kept beside it."""
    aggregation: (
        Literal["token-mean", "sequence-mean", "constant-length"]
        | Annotated[Aggregation, tyro.conf.Suppress]
    ) = "token-mean"
    """Of the tokens' losses: mean over all tokens (DAPO), over the sequences' means (GRPO), or the
    sum by the longest response (Dr. GRPO)."""
    clip_low: float = 0.2
    """The importance ratio is clipped below 1 less this."""
    clip_high: float = 0.28
    """The importance ratio is clipped above 1 plus this."""
    dual_clip: float | None = 10.0
    """Upper bound of the importance ratio where the advantage is negative; None for none."""
    entropy_coefficient: float = 0.001
    """Weight of the entropy bonus."""
    kl_coefficient: float = 0.0
    """Weight of the KL to the reference policy; 0 needs no reference."""
    kl_estimator: Literal["k1", "k3"] | Annotated[KLEstimator, tyro.conf.Suppress] = "k3"
    """Estimator of that KL."""
    recompute_old: bool = False
    """Take the old log-probabilities from the policy before the update, not from the sampler. With
    one optimizer step that costs nothing, with several one more forward pass over the batch."""
    sampler_ratio_cap: float | None = None
    """Weigh tokens by old / sampled probability, at most this (truncated importance sampling);
    corrects the mismatch of sampler and update, and needs recompute-old."""
    count_uninformative: bool = False
    """Divide by all groups, also those without variance or refused by the selector. They never
    enter the numerator: neither advantage, nor KL, nor entropy."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: A field is of another type.
            ValueError: A field is out of range, or does not fit another; the message names it.
        """
        _require_function(ADVANTAGES, advantages=self.advantages)
        _require_function(AGGREGATIONS, aggregation=self.aggregation)
        _require_function(KL_ESTIMATORS, kl_estimator=self.kl_estimator)
        checks.require_type(
            bool,
            "True or False",
            recompute_old=self.recompute_old,
            count_uninformative=self.count_uninformative,
        )
        _require(0 < _real(self, "clip_low") <= 1, self, "clip_low", "above 0, at most 1")
        _require(_real(self, "clip_high") > 0, self, "clip_high", "above 0")
        if self.dual_clip is not None:
            least = 1 + self.clip_high
            allowed = f"above 1 + clip_high = {least}, or None"
            _require(_real(self, "dual_clip") > least, self, "dual_clip", allowed)
        for name in ("entropy_coefficient", "kl_coefficient"):
            _require(_real(self, name) >= 0, self, name, "0 or above")
        if self.sampler_ratio_cap is not None:
            positive = _real(self, "sampler_ratio_cap") > 0
            _require(positive, self, "sampler_ratio_cap", "above 0, or None")
            if not self.recompute_old:
                raise ValueError(
                    f"LossConfig.sampler_ratio_cap={self.sampler_ratio_cap!r} needs "
                    "recompute_old=True: with the sampler's own log-probabilities as the old ones "
                    "the ratio it truncates is 1"
                )

    @property
    def advantage_function(self) -> AdvantageFunction | BeliefAdvantages:
        """From rewards to advantages."""
        return ADVANTAGES[self.advantages] if isinstance(self.advantages, str) else self.advantages

    @property
    def aggregate(self) -> Aggregation:
        """From masks to token weights."""
        chosen = self.aggregation
        return AGGREGATIONS[chosen] if isinstance(chosen, str) else chosen

    @property
    def estimate_kl(self) -> KLEstimator:
        """From two log-probabilities of a token to its KL."""
        chosen = self.kl_estimator
        return KL_ESTIMATORS[chosen] if isinstance(chosen, str) else chosen


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """How rollouts become an update. The numbers are those of the released DPS scripts."""

    rollouts_per_prompt: int = 8
    """Group size G."""
    learning_rate: float = 1e-6
    """Step size of AdamW."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW, on matrices only (no norms, no biases)."""
    max_grad_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    mini_batch: int | None = None
    """Prompts of one optimizer step; None takes the whole batch."""
    micro_batch: int | None = None
    """Sequences of one forward and backward pass, gradients being accumulated; None takes the whole
    mini-batch."""
    loss: Annotated[LossConfig, tyro.conf.arg(prefix_name=False)] = field(
        default_factory=LossConfig
    )

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: A field is of another type.
            ValueError: A field is out of range; the message names it, its value and the range.
        """
        checks.require_integers(
            rollouts_per_prompt=self.rollouts_per_prompt,
            epochs=self.epochs,
            **checks.given(mini_batch=self.mini_batch, micro_batch=self.micro_batch),
        )
        checks.require_type(LossConfig, "a LossConfig", loss=self.loss)
        group, mini, micro = self.rollouts_per_prompt, self.mini_batch, self.micro_batch
        _require(group >= 2, self, "rollouts_per_prompt", "at least 2: advantages compare rollouts")
        _require(_real(self, "learning_rate") > 0, self, "learning_rate", "above 0")
        _require(_real(self, "weight_decay") >= 0, self, "weight_decay", "0 or above")
        _require(_real(self, "max_grad_norm") > 0, self, "max_grad_norm", "above 0")
        _require(self.epochs >= 1, self, "epochs", "at least 1")
        _require(mini is None or mini >= 1, self, "mini_batch", "at least 1 prompt, or None")
        fits = micro is None or (micro >= 1 and (micro % group == 0 or group % micro == 0))
        allowed = f"a multiple or a divisor of rollouts_per_prompt={group}, or None"
        _require(fits, self, "micro_batch", allowed)


def _require_function(choices: Mapping[str, object], **given: object) -> None:
    """Demand one of some names, or a function."""
    for name, value in given.items():
        known = callable(value) or (isinstance(value, str) and value in choices)
        checks.require_setting(known, name, value, f"one of {', '.join(choices)}, or a function")


def _real(config: LossConfig | GRPOConfig, name: str) -> float:
    """The value of a field, which must be a number."""
    value = vars(config)[name]
    checks.require_real(**{name: value})
    return value


def _require(holds: bool, config: LossConfig | GRPOConfig, name: str, allowed: str) -> None:
    """Demand something of a field; false also for NaN, for which every comparison is false."""
    where = f"{type(config).__name__}.{name}"
    checks.require_setting(holds, where, vars(config)[name], allowed)
