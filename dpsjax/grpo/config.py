"""Settings of one GRPO update, checked when they are made."""

from dataclasses import dataclass

from dpsjax import checks


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """How rollouts become a parameter update.

    Defaults are those of the released DPS scripts. What is a choice of *function* (advantages,
    aggregation, KL estimator) is passed to :func:`dpsjax.grpo.update.make_update` instead.

    Attributes:
        rollouts_per_prompt: Group size G.
        learning_rate: AdamW step size.
        weight_decay: AdamW decoupled weight decay, on matrices only (no norms, no biases).
        max_grad_norm: Global gradient norm above which gradients are scaled down.
        clip_low: The importance ratio is clipped below ``1 - clip_low``.
        clip_high: The importance ratio is clipped above ``1 + clip_high``.
        dual_clip: Upper bound of the ratio where the advantage is negative; None for none.
        entropy_coefficient: Weight of the entropy bonus.
        kl_coefficient: Weight of the KL to the reference policy; 0 needs no reference.
        epochs: Passes over each batch of rollouts.
        mini_batch: Prompts of one optimizer step; None takes the whole batch.
        micro_batch: Sequences of one forward and backward pass, gradients being accumulated;
            None takes the whole mini-batch.
    """

    rollouts_per_prompt: int = 8
    learning_rate: float = 1e-6
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    entropy_coefficient: float = 0.001
    kl_coefficient: float = 0.0
    epochs: int = 1
    mini_batch: int | None = None
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            TypeError: A field is no number, or no integer where it counts.
            ValueError: A field is out of range; the message names it, its value and the range.
        """
        self._require_numbers()
        group, micro = self.rollouts_per_prompt, self.micro_batch
        _require(
            group >= 2, "rollouts_per_prompt", group, "at least 2: advantages compare rollouts"
        )
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or above")
        _require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        _require(0 < self.clip_low <= 1, "clip_low", self.clip_low, "above 0, at most 1")
        _require(self.clip_high > 0, "clip_high", self.clip_high, "above 0")
        bound = self.dual_clip
        _require(
            bound is None or bound > 1 + self.clip_high,
            "dual_clip",
            bound,
            f"above 1 + clip_high = {1 + self.clip_high}, or None",
        )
        _require(
            self.entropy_coefficient >= 0,
            "entropy_coefficient",
            self.entropy_coefficient,
            "0 or above",
        )
        _require(self.kl_coefficient >= 0, "kl_coefficient", self.kl_coefficient, "0 or above")
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        mini = self.mini_batch
        _require(mini is None or mini >= 1, "mini_batch", mini, "at least 1 prompt, or None")
        _require(
            micro is None or (micro >= 1 and (micro % group == 0 or group % micro == 0)),
            "micro_batch",
            micro,
            f"a multiple or a divisor of rollouts_per_prompt={group}, or None",
        )

    def _require_numbers(self) -> None:
        checks.require_integers(
            rollouts_per_prompt=self.rollouts_per_prompt,
            epochs=self.epochs,
            **checks.given(mini_batch=self.mini_batch, micro_batch=self.micro_batch),
        )
        checks.require_real(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            entropy_coefficient=self.entropy_coefficient,
            kl_coefficient=self.kl_coefficient,
            **checks.given(dual_clip=self.dual_clip),
        )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    # `not (holds)` also refuses NaN, for which every comparison is false.
    if not holds:
        raise ValueError(f"GRPOConfig.{name}={value!r} must be {allowed}")
