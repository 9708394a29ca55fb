"""google-tunix's side: its GRPOLearner with its built-in ("vanilla") sampler and its own Qwen2."""

import time
from importlib.metadata import version

import jax
import numpy as np
import optax
import workload as w
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.rl import rl_cluster as clusters
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig


class Numbers:
    """Tokens are written as their numbers; padding and the end lie outside the vocabulary."""

    def encode(self, text: str, **_) -> list[int]:
        """Numbers to tokens."""
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        """Tokens to numbers."""
        return " ".join(str(int(token)) for token in ids)

    def bos_id(self) -> int:
        """None is put in front."""
        return 0

    def pad_id(self) -> int:
        """Never sampled."""
        return w.VOCAB

    def eos_id(self) -> int:
        """Never sampled."""
        return w.VOCAB + 1


def make_model() -> nnx.Module:
    """The shared architecture, random weights."""
    config = qwen2.ModelConfig(
        num_layers=w.LAYERS,
        vocab_size=w.VOCAB,
        embed_dim=w.WIDTH,
        hidden_dim=w.MLP,
        num_heads=w.HEADS,
        head_dim=w.WIDTH // w.HEADS,
        num_kv_heads=w.KV_HEADS,
        rope_theta=int(w.ROPE_THETA),
        norm_eps=w.NORM_EPS,
        use_tied_embedding=True,
    )
    return qwen2.Qwen2(config, rngs=nnx.Rngs(0))


def make_optimizer() -> optax.GradientTransformation:
    """AdamW behind a global-norm clip."""
    return optax.chain(
        optax.clip_by_global_norm(w.MAX_GRAD_NORM),
        optax.adamw(w.LEARNING_RATE, w.BETA1, w.BETA2, w.ADAM_EPS, weight_decay=w.WEIGHT_DECAY),
    )


def make_cluster(steps: int, generate: int) -> clusters.RLCluster:
    """Model, sampler and trainer on one device; ``generate`` sequences at a time."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    config = clusters.ClusterConfig(
        role_to_mesh={
            clusters.Role.ACTOR: mesh,
            clusters.Role.REFERENCE: mesh,
            clusters.Role.ROLLOUT: mesh,
        },
        rollout_engine="vanilla",
        training_config=clusters.RLTrainingConfig(
            actor_optimizer=make_optimizer(),
            eval_every_n_steps=10**9,
            max_steps=steps,
            mini_batch_size=w.PROMPTS,
            train_micro_batch_size=w.MICRO_BATCH // w.GROUP,
            rollout_micro_batch_size=generate // w.GROUP,
            compute_logps_micro_batch_size=w.MICRO_BATCH // w.GROUP,
        ),
        rollout_config=RolloutConfig(
            max_tokens_to_generate=w.RESPONSE,
            max_prompt_length=w.PROMPT,
            kv_cache_size=w.PROMPT + w.RESPONSE,  # the smallest it accepts; its default is 1,024
            temperature=1.0,
            top_p=1.0,
            top_k=None,
        ),
    )
    return clusters.RLCluster(actor=make_model(), tokenizer=Numbers(), cluster_config=config)


def reward(prompts, completions, **_) -> list[float]:
    """The shared reward."""
    ids = [Numbers().encode(completion) for completion in completions]
    assert all(len(row) == w.RESPONSE for row in ids), "a response ended early"
    return w.rewards(ids).tolist()


def timed(clock: w.Clock, phase: str, call):
    """``call``, with its time accounted to a phase."""

    def run(*args, **kwargs):
        began = time.perf_counter()
        result = call(*args, **kwargs)
        clock.add(phase, began)
        return result

    return run


def main() -> None:
    """Run the steps and report."""
    args = w.arguments()
    steps = args.steps + 1
    cluster = make_cluster(steps, args.generate or w.MICRO_BATCH)
    config = GRPOConfig(num_generations=w.GROUP, num_iterations=1, beta=0.0, epsilon=w.CLIP_LOW)
    learner = GRPOLearner(rl_cluster=cluster, reward_fns=reward, algo_config=config)
    clock = w.Clock()
    cluster.generate = timed(clock, "generate", cluster.generate)
    learner._generate_and_compute_advantage = timed(
        clock, "rollout", learner._generate_and_compute_advantage
    )
    one_step = learner._run_global_step

    def step(*args) -> None:
        clock.start()
        one_step(*args)
        trainer = cluster.actor_trainer
        jax.block_until_ready((nnx.state(trainer.model), nnx.state(trainer.optimizer)))
        clock.stop()
        done = clock.steps[-1]
        done["update"] = done["step"] - done.pop("rollout")

    learner._run_global_step = step
    batches = [w.prompt_ids(number) for number in range(steps)]
    numbers = Numbers()
    learner.train([{"prompts": [numbers.decode(row) for row in batch]} for batch in batches])
    weights = jax.tree.leaves(nnx.state(cluster.actor_trainer.model, nnx.Param))
    w.report(
        clock,
        side="tunix",
        version=f"google-tunix {version('google-tunix')}, jax {jax.__version__}",
        parameters=sum(weight.size for weight in weights),
    )


if __name__ == "__main__":
    main()
