"""SkyRL 0.4: ``trainer_with(selector)`` is a trainer class, for ``get_trainer`` of an experiment.

Its loader asks when a step begins, its postprocessing tells the rewards; the belief is a part of
``data.pt`` in SkyRL's checkpoints.
"""

from typing import Any

import numpy as np

from dpsjax.adapters import require_version
from dpsjax.adapters.loader import Loader
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import Selector


def trainer_with(selector: Selector, *, base: Any = None, **options: Any) -> type:
    """A ``RayPPOTrainer`` whose prompts a selector chooses.

    Rewards of a rollout are summed, a pass above ``solved=0.5``; of several steps the last one's is
    told. With SkyRL's dynamic sampling every round is told, and time passes once a training step.
    Evaluation is as before. What a selector says of loss weights, vetoes and unequal numbers of
    rollouts is not used.

    Args:
        selector: a recipe or a chain.
        base: a subclass of your own; not one of the fully asynchronous trainers.
        **options: of :class:`dpsjax.Curriculum`: ``solved``, ``data``, ...

    Returns:
        a class with the arguments of its base; ``trainer.curriculum`` has metrics and the table.

    Raises:
        ImportError: SkyRL is of another version.
        TypeError: the base has no batches to replace.
    """
    require_version("skyrl", "0.4.")
    from skyrl.train.trainer import RayPPOTrainer

    base = RayPPOTrainer if base is None else base
    build = "_build_train_dataloader_and_compute_training_steps"
    if getattr(base, build, None) is not getattr(RayPPOTrainer, build):
        raise TypeError(f"base={base.__name__} must have the loader of RayPPOTrainer")

    class CurriculumTrainer(_Chosen, base):  # pyright: ignore
        """The methods that SkyRL calls."""

        chosen_by = selector
        its_options = options

    return CurriculumTrainer


class _Chosen:
    chosen_by: Any
    its_options: dict[str, Any]
    curriculum: Any
    _rounds_told = False

    def _build_train_dataloader_and_compute_training_steps(self: Any) -> None:
        super()._build_train_dataloader_and_compute_training_steps()  # pyright: ignore
        rows, trainer = self.train_dataset, self.cfg.trainer
        settings: dict[str, Any] = {
            "fingerprint": fingerprint(rows.dataframe),
            "seed": trainer.seed,
        }
        self.curriculum = Curriculum(
            self.chosen_by, len(rows), trainer.train_batch_size, **settings | self.its_options
        )
        self.train_dataloader = Loader(rows, rows.collate_fn, self.curriculum)

    def handle_dynamic_sampling(self: Any, generator_output, uids):
        _tell(self, generator_output, uids)
        found = super().handle_dynamic_sampling(generator_output, uids)  # pyright: ignore
        self._rounds_told, self.train_dataloader.refill = True, found[2]
        return found

    def postprocess_generator_output(
        self: Any, generator_output, uids, metrics_generator_output=None, metrics_uids=None
    ):
        if not self._rounds_told:
            every = metrics_generator_output is not None
            output = metrics_generator_output if every else generator_output
            _tell(self, output, metrics_uids if every else uids)
        self._rounds_told = False
        known = self.curriculum.metrics().items()
        self.all_metrics.update({f"curriculum/{name}": value for name, value in known})
        return super().postprocess_generator_output(  # pyright: ignore
            generator_output, uids, metrics_generator_output, metrics_uids
        )

    def load_checkpoints(self: Any):
        step, path = super().load_checkpoints()  # pyright: ignore
        if step and not self.train_dataloader.loaded:  # SkyRL warns, and would start from nothing
            raise ValueError(f"{path}/data.pt has no belief that fits; the log says why")
        return step, path


def _tell(trainer: Any, output: Any, uids: Any) -> None:
    rewards = [np.sum(reward) for reward in output["rewards"]]
    last = output.get("is_last_step") or [True] * len(uids)
    told = [(int(uid), r) for uid, r, is_last in zip(uids, rewards, last, strict=True) if is_last]
    trainer.train_dataloader.tell(*zip(*told, strict=True))
