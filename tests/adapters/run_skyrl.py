"""SkyRL's own training loop with a selector: run_skyrl.py OUT [filter].

What is stood in for: engine, workers and losses. Loop, loader hook, rewards, dynamic sampling,
checkpoints and resume are RayPPOTrainer's.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import typing_extensions

if sys.version_info < (
    3,
    12,
):  # SkyRL asks for 3.12; below it pydantic wants this
    typing.TypedDict = typing_extensions.TypedDict

from skyrl.train.config import SkyRLTrainConfig
from skyrl.train.dataset import PromptDataset
from skyrl.train.trainer import RayPPOTrainer

import dpsjax
from dpsjax.adapters.skyrl import trainer_with

PROMPTS, BATCH, GROUP, STEPS = 24, 4, 4, 9  # an epoch is six batches


class Policy:
    """A number for each prompt; what rises with rewards, and changes which rollouts pass."""

    def __init__(self):
        self.weights = np.zeros(PROMPTS)

    async def generate(self, given):
        rewards = []
        for trajectory in given["trajectory_ids"]:
            index = int(trajectory.instance_id)
            text = f"{index} {self.weights[index]} {trajectory.repetition_id}"
            rewards.append(float(hashlib.sha256(text.encode()).digest()[0] % 3 == 0))
        number = len(rewards)
        return {
            "prompt_token_ids": [[1]] * number,
            "response_ids": [[2, 3]] * number,
            "rewards": rewards,
            "loss_masks": [[1, 1]] * number,
            "stop_reasons": None,
            "rollout_metrics": None,
            "rollout_logprobs": None,
            "trajectory_ids": given["trajectory_ids"],
        }


class Dispatch:
    """Workers: one process that keeps the policy in a file."""

    def __init__(self, policy):
        self.policy = policy

    def get_lcm_dp_size(self):
        return 1

    async def save_weights_for_sampler(self):
        pass

    def get_timing_metrics(self):
        return {}

    def finalize_pending_saves(self, model):
        pass

    def save_checkpoint(self, model, folder, tokenizer):
        Path(folder).mkdir(parents=True)
        np.save(Path(folder) / "weights.npy", self.policy.weights)

    def load_checkpoint(self, model, folder, **_):
        self.policy.weights = np.load(Path(folder) / "weights.npy")


class Batch(dict):
    """A training batch."""

    def __init__(self, rewards, uids):
        super().__init__(rewards=rewards)
        self.metadata = {"uids": uids}


class Stand(RayPPOTrainer):
    """The parts of a step that need workers."""

    def init_weight_sync_state(self):
        pass

    def _cleanup_old_checkpoints(self):
        pass

    def convert_to_training_input(self, generator_output, uids):
        return Batch([sum(tokens) for tokens in generator_output["rewards"]], uids)

    def fwd_logprobs_values_reward(self, training_input):
        return training_input

    def compute_advantages_and_returns(self, data):
        for uid, reward in zip(data.metadata["uids"], data["rewards"], strict=True):
            self.generator.weights[int(uid)] += reward
        return data

    def train_critic_and_policy(self, data):
        return {}


def rows():
    made = PromptDataset.__new__(PromptDataset)  # its __init__ wants files and a tokenizer
    made.dataframe = datasets.Dataset.from_dict({"prompt": [f"prompt {i}" for i in range(PROMPTS)]})
    made.prompt_key, made.env_class_key = "prompt", "env_class"
    return made


def train(out, steps, dynamic):
    cfg = SkyRLTrainConfig()
    of = cfg.trainer
    of.ckpt_path, of.ckpt_interval, of.epochs, of.max_training_steps = str(out), 4, 10, steps
    of.train_batch_size, of.eval_interval, of.print_example_interval = BATCH, -1, -1
    of.placement.colocate_all = of.enable_ray_gpu_monitor = False
    cfg.generator.inference_engine.enable_ray_prometheus_stats = False
    cfg.generator.n_samples_per_prompt = GROUP
    if dynamic:
        of.algorithm.dynamic_sampling.type = "filter"
        of.algorithm.dynamic_sampling.max_sample_batches = 10
    logged, policy = [], Policy()
    tracker = SimpleNamespace(log=lambda data, **_: logged.append(data), finish=lambda: None)
    trainer = trainer_with(dpsjax.selectors.dps(), base=Stand)(
        cfg=cfg,
        tracker=tracker,
        tokenizer=None,
        train_dataset=rows(),
        inference_engine_client=None,
        generator=policy,
    )
    trainer.dispatch = Dispatch(policy)
    asked, ask = [], trainer.curriculum.ask_ticket

    def recorded(**options):
        ticket, index = ask(**options)
        asked.append(index.tolist())
        return ticket, index

    trainer.curriculum.ask_ticket = recorded
    with contextlib.redirect_stdout(sys.stderr):
        asyncio.run(trainer.train())
    return {
        "asked": asked,
        "steps": trainer.total_training_steps,
        "weights": policy.weights.tolist(),
        "rate": trainer.curriculum.table()["rate"].tolist(),
        "metrics": trainer.curriculum.metrics(),
        "logged": sorted(name for name in logged[-1] if name.startswith("curriculum/")),
    }


def main() -> None:
    out, dynamic = Path(sys.argv[1]), "filter" in sys.argv
    whole = train(out / "whole", STEPS, dynamic)
    train(out / "run", 4, dynamic)  # ends at a checkpoint; what follows is another object
    again = train(out / "run", STEPS, dynamic)
    (out / "run" / f"global_step_{STEPS}" / "data.pt").write_bytes(b"damaged")
    try:
        train(out / "run", STEPS + 1, dynamic)
        refused = ""
    except ValueError as error:
        refused = str(error)
    print("\n" + json.dumps({"whole": whole, "again": again, "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
