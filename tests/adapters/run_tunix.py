"""GRPOLearner on a tiny random model, with a selector: run_tunix.py OUT STEPS [name=value ...]."""

import hashlib
import json
import sys

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.rl import rl_cluster as clusters
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig

import dpsjax
from dpsjax.adapters.tunix import attach

VOCAB, PROMPTS, GROUP, BATCH = 12, 24, 4, 4


class Numbers:
    """Tokens are written as their numbers."""

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def decode(self, ids, **_):
        return " ".join(str(int(token)) for token in ids)

    def bos_id(self):
        return 0

    def pad_id(self):
        return VOCAB

    def eos_id(self):
        return VOCAB + 1


def reward(prompts, completions, wanted, **_):
    """Whether a die of the prompt and the response falls right: greedy runs repeat it."""
    found = []
    for place, (text, w) in enumerate(zip(completions, wanted, strict=True)):
        die = hashlib.sha256(f"{text} {w} {place % GROUP}".encode()).digest()[0]
        found.append(float(die % 3 == 0))
    return found


def learner(out, steps, given):
    config = qwen2.ModelConfig(
        num_layers=1,
        vocab_size=VOCAB + 2,
        embed_dim=16,
        hidden_dim=32,
        num_heads=2,
        head_dim=8,
        num_kv_heads=1,
        rope_theta=10_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    roles = (clusters.Role.ACTOR, clusters.Role.REFERENCE, clusters.Role.ROLLOUT)
    settings = clusters.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh),
        rollout_engine="vanilla",
        training_config=clusters.RLTrainingConfig(
            actor_optimizer=optax.sgd(0.1),
            eval_every_n_steps=10**9,
            max_steps=steps,
            mini_batch_size=BATCH,
            train_micro_batch_size=given["micro"],
            rollout_micro_batch_size=given["micro"],
            compute_logps_micro_batch_size=given["micro"],
            checkpoint_root_directory=out,
            checkpointing_options=ocp.CheckpointManagerOptions(
                save_interval_steps=given["save"], max_to_keep=None
            ),
        ),
        # Greedy: tunix does not save the state of its sampler's keys.
        rollout_config=RolloutConfig(
            max_tokens_to_generate=3,
            max_prompt_length=4,
            kv_cache_size=8,
            temperature=1.0,
            top_p=None,
            top_k=1,
        ),
    )
    model = qwen2.Qwen2(config, rngs=nnx.Rngs(0))
    cluster = clusters.RLCluster(actor=model, tokenizer=Numbers(), cluster_config=settings)
    algorithm = GRPOConfig(
        num_generations=GROUP, num_iterations=given["iterations"], beta=0.0, epsilon=0.2
    )
    return GRPOLearner(rl_cluster=cluster, reward_fns=reward, algo_config=algorithm)


def main() -> None:
    out, steps, *rest = sys.argv[1:]
    given = {"micro": BATCH, "iterations": 1, "save": 100}
    given |= {name: int(value) for name, value in (word.split("=") for word in rest)}
    of = learner(out, int(steps), given)
    columns = {
        "prompts": [f"{i % VOCAB} {i % 7}" for i in range(PROMPTS)],
        "wanted": list(range(PROMPTS)),
    }
    stream = attach(of, columns, dpsjax.selectors.dps(), batch_size=BATCH)
    curriculum, asked = stream.curriculum, []
    ask = curriculum.ask

    def recorded():
        asked.append(ask().tolist())
        return np.array(asked[-1], np.int32)

    curriculum.ask = recorded
    of.train(stream)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.state(of.rl_cluster.actor_trainer.model, nnx.Param)):
        digest.update(np.asarray(leaf).tobytes())
    table = curriculum.table()
    found = {
        "asked": asked,
        "weights": digest.hexdigest(),
        "rollouts": table["rollouts"].tolist(),
        "rate": [round(float(rate), 6) for rate in table["rate"]],
        "metrics": curriculum.metrics(),
    }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
