"""TRL 1.16: ``attach(trainer, selector)`` before ``trainer.train()``.

Prompts are chosen where a generation batch is made, so none is asked ahead of the rewards; the
rewards gathered from all processes are told; the belief is saved in TRL's own checkpoints, with
what TRL itself loses of a cycle of several steps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dpsjax.adapters import require_version
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import Selector

BELIEF, CYCLE = "dpsjax_curriculum", "dpsjax_cycle_{rank}.pt"


def attach(
    trainer: Any,
    selector: Selector,
    *,
    reward: Callable[[np.ndarray], np.ndarray] | None = None,
    **options: Any,
) -> Curriculum:
    """Let a selector choose the prompts of a ``GRPOTrainer``.

    The order of the training set no longer matters; how many steps a run has is still TRL's.
    Evaluation is as before. TRL's loss is too: what a selector says of loss weights, vetoes and
    unequal numbers of rollouts is not used.

    Args:
        trainer: a ``GRPOTrainer``, made and not started, with a data set that has a length.
        selector: a recipe or a chain.
        reward: ``float[R, F] -> float[R]`` from the reward functions' values (NaN: no verdict) to
            what is told; by default their weighted sum, as in TRL's advantages. Name the one that
            judges the answer, where others reward its form: ``reward=lambda r: r[:, 0]``.
        **options: of :class:`dpsjax.Curriculum`: ``solved``, ``seed``, ``data``, ...

    Returns:
        the curriculum; its ``metrics()`` stand in TRL's log as ``curriculum/NAME``.

    Raises:
        ImportError: TRL is of another version.
        TypeError: the training set has no length.
        ValueError: as :class:`dpsjax.Curriculum` does.
    """
    require_version("trl", "1.16.")
    if not hasattr(trainer.train_dataset, "__len__"):
        raise TypeError("train_dataset must have a length; an iterable one has no rows to choose")
    group = trainer.num_generations
    curriculum = Curriculum(
        selector,
        len(trainer.train_dataset),
        trainer.args.generation_batch_size // group,
        group=group,
        **{"fingerprint": fingerprint(trainer.train_dataset), "seed": trainer.args.seed} | options,
    )
    _Attached(trainer, curriculum, reward)
    return curriculum


class _Attached:
    """The methods of a trainer that are replaced, each calling the one it replaces."""

    def __init__(self, trainer: Any, curriculum: Curriculum, reward: Callable | None) -> None:
        self.trainer, self.curriculum, self.reward = trainer, curriculum, reward
        self.ticket = -1
        for name in (
            "_generate_and_score_completions",
            "_calculate_rewards",
            "_save_checkpoint",
            "_load_optimizer_and_scheduler",
        ):
            setattr(self, f"its{name}", getattr(trainer, name))
            setattr(trainer, name, getattr(self, name[1:]))

    def generate_and_score_completions(self, inputs):
        trainer = self.trainer
        if trainer.model.training:
            self.ticket, index = self.curriculum.ask_ticket()
            self.same_everywhere(index)
            rows = np.repeat(index, trainer.num_generations)
            first = trainer.accelerator.process_index * len(inputs)
            columns = inputs[0].keys()
            chosen = [trainer.train_dataset[int(i)] for i in rows[first : first + len(inputs)]]
            inputs = [{name: row[name] for name in columns} for row in chosen]
        return self.its_generate_and_score_completions(inputs)  # pyright: ignore

    def calculate_rewards(self, *args, **kwargs):
        rewards = self.its_calculate_rewards(*args, **kwargs)  # pyright: ignore
        if self.trainer.model.training:
            values = rewards.detach().cpu().double().numpy()
            told = self.summed(values) if self.reward is None else self.reward(values)
            self.curriculum.tell(self.ticket, told)
            log = self.trainer._metrics["train"]
            for name, value in self.curriculum.metrics().items():
                log[f"curriculum/{name}"].append(value)
        return rewards

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Weighted sums of rewards, NaN where there is none."""
        weights = self.trainer.reward_weights.detach().cpu().double().numpy()
        sums = np.nansum(values * weights, axis=1)
        return np.where(np.isnan(values).all(axis=1), np.nan, sums)

    def same_everywhere(self, index: np.ndarray) -> None:
        """Refuse to train groups that the processes divide differently."""
        import torch

        accelerator = self.trainer.accelerator
        if accelerator.num_processes > 1:
            mine = torch.tensor(index[None], device=accelerator.device)
            every = accelerator.gather(mine).cpu().numpy()
            if (every != index).any():
                raise RuntimeError(f"processes chose different prompts: {every.tolist()}")

    def save_checkpoint(self, model, trial):
        import torch

        self.its_save_checkpoint(model, trial)  # pyright: ignore
        trainer = self.trainer
        root, step = trainer._get_output_dir(trial=trial), trainer.state.global_step
        folder = Path(root) / f"checkpoint-{step}"
        if trainer.args.should_save:
            self.curriculum.save(folder / BELIEF)
        if trainer._step % (trainer.args.steps_per_generation * trainer.num_iterations):
            cycle = {"step": trainer._step, "inputs": trainer._buffered_inputs}
            torch.save(cycle, folder / CYCLE.format(rank=trainer.accelerator.process_index))

    def load_optimizer_and_scheduler(self, checkpoint):
        import torch

        self.its_load_optimizer_and_scheduler(checkpoint)  # pyright: ignore
        if checkpoint is None:
            return
        trainer, folder = self.trainer, Path(checkpoint)
        self.curriculum.load(folder / BELIEF)
        cycle = folder / CYCLE.format(rank=trainer.accelerator.process_index)
        if cycle.exists():  # TRL would generate anew in the middle of a cycle
            found = torch.load(cycle, map_location=trainer.accelerator.device, weights_only=True)
            trainer._step, trainer._buffered_inputs = found["step"], found["inputs"]
