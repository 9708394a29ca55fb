"""verl's own synchronous loop with a selector: run_verl.py OUT.

What is stood in for: engine, workers, losses, and the queue between them (a dictionary). Loop, data
set, replay buffer, checkpoints and resume are verl's.
"""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

OUT = Path(sys.argv[1])
(OUT / "my_curriculum.py").write_text(
    "import dpsjax\nfrom dpsjax.adapters.verl import register\n\n"
    "register(dpsjax.selectors.dps())\n",
    encoding="utf-8",
)
sys.path.insert(0, str(OUT))
os.environ["VERL_USE_EXTERNAL_MODULES"] = "my_curriculum"  # verl imports it while it is imported

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls  # noqa: E402

PROMPTS, BATCH, GROUP, STEPS = 24, 4, 4, 9


class Queue:
    """What the loop asks of TransferQueue, in a dictionary."""

    def __init__(self):
        self.tags, self.fields = {}, {}

    def kv_batch_put(self, keys, partition_id, tags=None, fields=None):
        for place, key in enumerate(keys):
            if tags:
                self.tags[key] = tags[place]
            if fields:
                self.fields[key] = fields[place]

    def kv_batch_get(self, keys, partition_id, select_fields):
        assert select_fields == ["rm_scores"]
        scores = [torch.tensor(self.fields[key]) for key in keys]
        nested = torch.nested.as_nested_tensor(scores, layout=torch.jagged)
        return TensorDict({"rm_scores": nested}, batch_size=len(keys))

    def kv_list(self, partition_id=None):
        return {"train": dict(self.tags)}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.tags.pop(key, None)
            self.fields.pop(key, None)


QUEUE = Queue()
for name in ("kv_batch_put", "kv_batch_get", "kv_list", "kv_clear"):
    setattr(tq, name, getattr(QUEUE, name))


class Workers:
    """The policy: a number for each prompt; what rises with rewards changes which pass."""

    def __init__(self):
        self.weights = np.zeros(PROMPTS)

    def save_checkpoint(self, folder, *_, **__):
        Path(folder).mkdir(parents=True)
        np.save(Path(folder) / "weights.npy", self.weights)

    def load_checkpoint(self, local_path, **_):
        self.weights = np.load(Path(local_path) / "weights.npy")

    def generate_sequences(self, batch):
        """Sessions of one or two parts, the last of which counts; one session in nine fails."""
        for uid, message in zip(batch["uid"], batch["raw_prompt"], strict=True):
            index = int(message[0]["content"].split()[1])
            for session in range(GROUP):
                text = f"{index} {self.weights[index]} {session}"
                die = hashlib.sha256(text.encode()).digest()[0]
                if die % 9 == 0 and session:
                    continue
                parts = [[9.0]] * (session % 2) + [[0.0, float(die % 3 == 0)]]
                keys = [f"{uid}_{session}_{part}" for part in range(len(parts))]
                tags = [{"seq_len": 2, "prompt": index}] * len(parts)
                QUEUE.kv_batch_put(keys, "train", tags, parts)
            QUEUE.tags[uid] = QUEUE.tags[uid] | {"status": "finished"}


class Stand:
    """The parts of a step that need workers."""

    def _setup(self):
        self.tokenizer = self.processor = None
        self._init_dataloader()
        self._init_dump_executor()
        self.actor_rollout_wg = Workers()
        nothing = SimpleNamespace(update_weights=lambda _: None, sleep_replicas=lambda: None)
        self.checkpoint_manager = nothing
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        self._load_checkpoint()

    def _balance_batch(self, batch, metrics):
        return batch

    _compute_old_log_prob = _compute_advantage = _balance_batch

    def _update_actor(self, batch, metrics):
        for key, tag in zip(batch.keys, batch.tags, strict=True):
            self.actor_rollout_wg.weights[tag["prompt"]] += sum(QUEUE.fields[key]) % 9
        return batch

    def _compute_metrics(self, batch, metrics, *_, **__):
        self.seen.append(dict(metrics))

    def _start_profiling(self):
        self.curr_step_profile = False

    def _stop_profiling(self):
        pass


def train(out, files, steps):
    with initialize_config_module("verl.trainer.config", version_base=None):
        words = {
            "trainer.v1.trainer_mode": "dpsjax",
            "data.train_files": files,
            "data.val_files": files,
            "data.train_batch_size": BATCH,
            "data.filter_overlong_prompts": False,
            "data.dataloader_num_workers": 0,
            "actor_rollout_ref.rollout.n": GROUP,
            "actor_rollout_ref.actor.use_kl_loss": False,
            "algorithm.adv_estimator": "grpo",
            "trainer.total_training_steps": steps,
            "trainer.total_epochs": 10,
            "trainer.save_freq": 4,
            "trainer.test_freq": -1,
            "trainer.val_before_train": False,
            "trainer.logger": "[console]",
            "trainer.default_local_dir": out,
        }
        config = compose("ppo_trainer", [f"{name}={value}" for name, value in words.items()])
    made = type("Trainer", (Stand, get_trainer_cls("dpsjax")), {"seen": []})(config)
    made.init()
    asked, ask = [], made.curriculum.ask_ticket

    def recorded(**options):
        ticket, index = ask(**options)
        asked.append(index.tolist())
        return ticket, index

    made.curriculum.ask_ticket = recorded
    made.fit(made.actor_rollout_wg)
    return {
        "asked": asked,
        "weights": made.actor_rollout_wg.weights.tolist(),
        "rate": made.curriculum.table()["rate"].tolist(),
        "metrics": made.curriculum.metrics(),
        "logged": sorted(name for name in made.seen[-1] if name.startswith("curriculum/")),
    }


def main() -> None:
    out = OUT
    os.chdir(out)
    assert issubclass(get_trainer_cls("dpsjax"), PPOTrainerSync)
    rows = [[{"role": "user", "content": f"prompt {i}"}] for i in range(PROMPTS)]
    files = str(out / "rows.parquet")
    datasets.Dataset.from_dict({"prompt": rows}).to_parquet(files)
    with contextlib.redirect_stdout(sys.stderr):
        whole = train(out / "whole", files, STEPS)
        train(out / "run", files, 4)  # ends at a checkpoint; what follows is another object
        again = train(out / "run", files, STEPS)
        (out / "run" / f"global_step_{STEPS}" / "data.pt").unlink()
        try:
            train(out / "run", files, STEPS + 1)
            refused = ""
        except ValueError as error:
            refused = str(error)
    print("\n" + json.dumps({"whole": whole, "again": again, "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
