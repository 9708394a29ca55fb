"""dpsjax's side: the training loop's own steps, prompt selection included, on a synthetic task."""

from dataclasses import dataclass

import jax
import numpy as np
import workload as w

from dpsjax.grpo import GRPOConfig, LossConfig
from dpsjax.loop.step import train_step
from dpsjax.policy import PolicyConfig
from dpsjax.policy.config import Rope
from dpsjax.run.config import (
    EvaluationConfig,
    MeshConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from dpsjax.run.setup import prepare
from dpsjax.tasks.base import Problem, Score, Task
from dpsjax.tasks.countdown import CountdownConfig

POOL = 256  # prompts that DPS chooses from


class Numbers:
    """Tokens are written as their numbers. Nothing ends a response: no logit is of the last one."""

    pad_id, eos_id, vocab_size = 0, w.VOCAB, w.VOCAB

    def encode(self, text: str) -> list[int]:
        """Numbers to tokens."""
        return [int(word) for word in text.split()]

    def decode(self, ids) -> str:
        """Tokens to numbers."""
        return " ".join(str(int(token)) for token in ids)


def score(problems, responses) -> list[Score]:
    """The shared reward; a response above the mean counts as solved."""
    values = w.rewards(np.array([Numbers().encode(response) for response in responses]))
    return [Score(float(value), bool(value > 0.5), "") for value in values]


@dataclass(frozen=True)
class SyntheticTask(CountdownConfig):
    """Stands where a run has its task."""

    problems: int = POOL

    def build(self) -> Task:
        """Prompts of the shared workload."""
        rows = np.concatenate([w.prompt_ids(step) for step in range(POOL // w.PROMPTS + 1)])
        numbers = Numbers()
        problems = [Problem(numbers.decode(row), None, "random") for row in rows]
        return Task(
            "random",
            tuple(problems[:POOL]),
            tuple(problems[POOL:]),
            score,
            numbers,
            w.PROMPT,
            w.RESPONSE,
        )


@dataclass(frozen=True)
class Qwen2(ModelConfig):
    """Stands where a run has its architecture."""

    def policy(self, vocab_size: int, image_id: int | None = None) -> PolicyConfig:
        """The shared one."""
        return PolicyConfig(
            vocab_size=vocab_size,
            width=w.WIDTH,
            mlp_width=w.MLP,
            layers=w.LAYERS,
            heads=w.HEADS,
            kv_heads=w.KV_HEADS,
            head_dim=w.WIDTH // w.HEADS,
            attention_bias=True,
            norm_eps=w.NORM_EPS,
            rope=Rope(theta=w.ROPE_THETA),
        )


def main() -> None:
    """Run the steps and report."""
    args = w.arguments()
    config = TrainConfig(
        rollout=RolloutConfig(prompts=w.PROMPTS),
        model=Qwen2(init="random"),
        task=SyntheticTask(held_out=w.PROMPTS),
        mesh=MeshConfig(),
        evaluation=EvaluationConfig(problems=w.PROMPTS),
        grpo=GRPOConfig(
            rollouts_per_prompt=w.GROUP,
            learning_rate=w.LEARNING_RATE,
            weight_decay=w.WEIGHT_DECAY,
            max_grad_norm=w.MAX_GRAD_NORM,
            micro_batch=w.GROUP,  # the responses of one prompt: as fast as 16, in less memory
            loss=LossConfig(clip_low=w.CLIP_LOW, clip_high=w.CLIP_HIGH, entropy_coefficient=0.0),
        ),
    )
    run, state = prepare(config)
    clock = w.Clock()
    for _ in range(args.steps + 1):
        clock.start()
        state, record, done = train_step(run, state)
        clock.stop()
        seconds = record["seconds"]
        clock.steps[-1] |= {"generate": seconds["generate"], "update": seconds["update"]}
        assert done.batch.mask.all(), "a response ended early"
    parameters = run.policy.num_params()
    w.report(clock, side="dpsjax", version=f"jax {jax.__version__}", parameters=parameters)


if __name__ == "__main__":
    main()
