"""The sections of the settings, checked when made; :mod:`dpsjax.run.config` has the whole."""

import math
import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from dpsjax.checks import (
    given,
    named_values,
    require_choice,
    require_counts,
    require_integers,
    require_real,
    require_setting,
    require_type,
)
from dpsjax.loop.responses import Sample
from dpsjax.loop.scoring import Overlong
from dpsjax.policy import Compute, PolicyConfig, Rope, Sampling, tiny_vision
from dpsjax.tasks.base import Task, Tokenizer, stop_ids


@dataclass(frozen=True)
class ModelConfig:
    """The policy: where it starts, and how it is computed."""

    init: Annotated[
        str, tyro.conf.arg(prefix_name=False, aliases=("--model",), metavar="base|random|PATH")
    ] = "base"
    """Start from the shipped base, from random weights, from a safetensors file, or from a folder
    of a Qwen2.5, Qwen2.5-VL, Qwen3 or Llama-3 checkpoint, whose tokenizer is then used."""
    width: int = 96
    """Width of the residual stream; this and the sizes below matter for random weights only."""
    mlp_width: int = 256
    """Width of the gated hidden layer."""
    layers: int = 3
    """Transformer blocks."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 2
    """Key and value heads; must divide the query heads."""
    head_dim: int = 24
    """Size of a head, even."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products and activations; parameters stay float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes to save memory."""
    scan_layers: bool = False
    """Scan over the layers: compiles faster where they are many."""
    query_chunk: int = 0
    """Attention scores exist for this many query positions at a time; 0 for all."""
    decode_weights: Literal["gathered", "sharded"] = "gathered"
    """Generation holds the weights divided by mesh.tensor only, or gathers them in every step."""
    waves: int = 1
    """Turns in which a prompt's rollouts are generated; each needs its share of the cache."""
    lora_rank: Annotated[int, tyro.conf.arg(prefix_name=False)] = 0
    """Train LoRA adapters of this rank, not the weights (extra lora); 0 trains the weights. They
    are merged where the policy is written at the end."""
    lora_alpha: Annotated[float, tyro.conf.arg(prefix_name=False)] = 16.0
    """An adapter counts alpha / rank times."""
    template: tuple[str, ...] = ()
    """What the checkpoint's chat template is told, in JSON, such as enable_thinking=false."""
    max_pixels: int | None = None
    """Larger pictures are made smaller than this, for a model that sees; by default as its
    checkpoint says."""

    def __post_init__(self):
        self.template_settings()
        require_integers(lora_rank=self.lora_rank)
        require_real(lora_alpha=self.lora_alpha)
        require_setting(self.lora_rank >= 0, "lora_rank", self.lora_rank, "0 (off) or more")
        require_setting(self.lora_alpha > 0, "lora_alpha", self.lora_alpha, "above 0")
        require_counts(**given(max_pixels=self.max_pixels))
        self.compute()

    def template_settings(self) -> dict[str, Any]:
        """What the chat template is told.

        Raises:
            ValueError: an item is not NAME=JSON.
        """
        return named_values(template=self.template)

    def policy(self, vocab_size: int, image_id: int | None = None) -> PolicyConfig:
        """The architecture of a policy with random weights.

        Args:
            vocab_size: tokens.
            image_id: the one in whose places pictures stand, for a policy that sees.

        Raises:
            ValueError: a size is out of range.
        """
        rope, vision = Rope(), None
        if image_id is not None:
            turned = self.head_dim // 6
            rope = Rope(sections=(self.head_dim // 2 - 2 * turned, turned, turned))
            vision = tiny_vision(image_id)
        return PolicyConfig(
            rope=rope,
            vision=vision,
            vocab_size=vocab_size,
            width=self.width,
            mlp_width=self.mlp_width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
        )

    def compute(self) -> Compute:
        """How it is computed."""
        return Compute(
            dtype=self.dtype,
            remat=self.remat,
            scan_layers=self.scan_layers,
            query_chunk=self.query_chunk,
            decode_weights=self.decode_weights,
            waves=self.waves,
        )


@dataclass(frozen=True)
class RolloutConfig:
    """How responses are sampled for training."""

    prompts: Annotated[int, tyro.conf.arg(prefix_name=False)] = 32
    """Prompts of a step; each gets --grpo.rollouts-per-prompt responses."""
    temperature: float = 1.0
    """Divides the logits."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Keep the fewest tokens with at least this probability; 1 for all."""
    buckets: int = 1
    """Widths that prompts and responses of a step may be padded to, up to the longest; a step takes
    the smallest that fits. Each width compiles once, each pair of them an update."""
    keep: int | None = None
    """Learn from so many rollouts of each group, those of the greatest reward variance (PODS);
    from all by default."""
    mask_truncated: bool = False
    """Responses without an end within their limit do not enter the loss; their rewards count in
    their groups, and in what is believed."""
    overlong_buffer: int = 0
    """Tokens before the limit in which a response's reward falls by up to the penalty, in
    proportion (DAPO's soft punishment); 0 for none. Held-out problems are scored without it."""
    overlong_penalty: float = 1.0
    """What a response that reaches the limit loses."""
    workers: Annotated[int | None, tyro.conf.arg(name="score-workers", prefix_name=False)] = None
    """Processes that score the responses, for verifiers that may hang or die; 0 scores here. By
    default as the task needs: none, or for mathematics one for each processor core, up to 8."""
    seconds: Annotated[float, tyro.conf.arg(name="score-seconds", prefix_name=False)] = 30.0
    """A worker that takes longer for the responses to one prompt (one response, in mathematics) is
    killed and replaced; they do not count."""

    def __post_init__(self):
        require_integers(**given(keep=self.keep, workers=self.workers))
        require_real(seconds=self.seconds, temperature=self.temperature)
        few = self.workers is None or self.workers >= 0
        require_setting(few, "workers", self.workers, "0 (none) or more")
        require_setting(0 < self.seconds < math.inf, "seconds", self.seconds, "above 0 and finite")
        require_counts(least=0, overlong_buffer=self.overlong_buffer)
        require_real(overlong_penalty=self.overlong_penalty)
        penalty = 0 < self.overlong_penalty < math.inf
        allowed = "above 0 and finite"
        require_setting(penalty, "overlong_penalty", self.overlong_penalty, allowed)
        require_type(bool, "a boolean", mask_truncated=self.mask_truncated)
        require_setting(self.keep is None or self.keep >= 2, "keep", self.keep, "at least 2")
        require_counts(prompts=self.prompts)
        require_counts(buckets=self.buckets)
        require_setting(
            self.temperature > 0, "temperature", self.temperature, "above 0 in training"
        )

    def workers_of(self, task: Task) -> int:
        """Processes that score the responses of a task.

        Raises:
            ValueError: none were asked for, and the task's verifier may hang or die.
        """
        if self.workers is None:
            return min(os.cpu_count() or 1, 8) if task.isolated else 0
        if task.isolated and not self.workers:
            raise ValueError(
                f"score-workers=0 would grade {task.name} in this process, where a response that "
                "never ends would end the run: give at least 1"
            )
        return self.workers

    def overlong(self, response_tokens: int) -> Overlong | None:
        """The penalty on long responses, if there is one.

        Raises:
            ValueError: the buffer is longer than a response.
        """
        if not self.overlong_buffer:
            return None
        fits = self.overlong_buffer <= response_tokens
        allowed = f"at most the {response_tokens} tokens of a response"
        require_setting(fits, "overlong_buffer", self.overlong_buffer, allowed)
        return Overlong(self.overlong_buffer, self.overlong_penalty)

    def sampling(self, max_tokens: int, tokenizer: Tokenizer) -> Sampling:
        """The settings for :func:`dpsjax.policy.generate`."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            stop_ids=stop_ids(tokenizer),
            pad_id=tokenizer.pad_id,
        )


_PROBLEMS = 500  # of an evaluation, where nothing else is said


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out accuracy: always the same problems and the same random keys."""

    every: int = 25
    """Steps between evaluations; one more is made before the first step and after the last."""
    problems: int | None = None
    """Size of the uniformly drawn slice of the held-out problems; by default 500, or all where
    there are fewer."""
    samples: int = 2
    """Responses to each problem; accuracy is the mean over all of them."""
    temperature: float = 1.0
    """Of these responses; 0 takes the most likely token (then one sample is enough)."""

    def __post_init__(self):
        require_counts(every=self.every)
        require_counts(**given(problems=self.problems))
        require_counts(samples=self.samples)

    def size(self, held_out: int) -> int:
        """How many of so many held-out problems are asked."""
        return min(held_out, _PROBLEMS) if self.problems is None else self.problems

    def sampling(self, max_tokens: int, tokenizer: Tokenizer) -> Sampling:
        """The settings for :func:`dpsjax.policy.generate`."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            stop_ids=stop_ids(tokenizer),
            pad_id=tokenizer.pad_id,
        )


@dataclass(frozen=True)
class ResponsesConfig:
    """The responses that are kept to be read (responses.jsonl); they change nothing else."""

    prompts: int = 2
    """Prompts of each step, and of each evaluation, whose responses are kept; 0 keeps none."""
    each: int = 2
    """Responses to each of them."""
    characters: int = 4000
    """Longest text; the middle of a longer one is left out."""

    def __post_init__(self):
        require_counts(least=0, prompts=self.prompts)
        require_counts(each=self.each, characters=self.characters)

    def sample(self) -> Sample:
        """The same for the loop."""
        return Sample(self.prompts, self.each, self.characters)


@dataclass(frozen=True)
class MeshConfig:
    """How devices share the work."""

    data: int = 0
    """Replicas of the parameters, each with its part of a batch; 0 takes all devices left."""
    fsdp: int = 1
    """Ways the parameters are divided by width; each part sees its part of a batch too."""
    tensor: int = 1
    """Ways the parameters are divided by heads, MLP and vocabulary."""

    def __post_init__(self):
        require_integers(data=self.data)
        require_setting(self.data >= 0, "data", self.data, "0 (all devices left) or more")
        require_counts(fsdp=self.fsdp)
        require_counts(tensor=self.tensor)


@dataclass(frozen=True)
class CheckpointConfig:
    """When the whole state is saved; the same command continues from the last good checkpoint."""

    every: int = 20
    """Steps between checkpoints; one more is written after the last step, and on SIGTERM."""
    minutes: float = 10.0
    """Save earlier when this much time has passed since the last one."""
    keep: int = 3
    """Checkpoints that stay: the last ones."""
    keep_best: bool = True
    """Also keep the one of best held-out accuracy, among those where it was measured."""
    on_error: Literal["continue", "stop"] = "continue"
    """When one cannot be written (a full disk): train on, or stop. The earlier ones stay."""
    on_nonfinite: Annotated[Literal["skip", "stop"], tyro.conf.arg(prefix_name=False)] = "skip"
    """When a loss or gradient is NaN or infinite: skip that optimizer step, or stop the run; the
    last checkpoint is then from before it."""

    def __post_init__(self):
        require_counts(every=self.every)
        require_real(minutes=self.minutes)
        require_setting(self.minutes > 0, "minutes", self.minutes, "above 0")
        require_counts(keep=self.keep)
        require_choice(("continue", "stop"), on_error=self.on_error)
        require_choice(("skip", "stop"), on_nonfinite=self.on_nonfinite)
