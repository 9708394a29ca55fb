"""verl 0.9: ``register(selector)`` in a module of yours that ``VERL_USE_EXTERNAL_MODULES`` names.

It makes a trainer known, ``trainer.v1.trainer_mode=dpsjax``: the synchronous one, with a loader
that asks when a step begins, in verl's own process, and rewards told when the step is done; the
belief is a part of ``data.pt`` in verl's checkpoints.
"""

from collections.abc import Sequence
from typing import Any

from dpsjax.adapters import require_version
from dpsjax.adapters.loader import Loader
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import Selector


def register(selector: Selector, *, name: str = "dpsjax", **options: Any) -> type:
    """Make a trainer whose prompts a selector chooses known to verl.

    A rollout's reward is the sum of its token scores (of several parts the last one's), a pass
    above ``solved=0.5``. Rollouts that failed are not told. verl's own filter of groups and its
    refill of failed ones must be off. Evaluation is as before. What a selector says of loss
    weights, vetoes and unequal numbers of rollouts is not used.

    Args:
        selector: a recipe or a chain.
        name: what ``trainer.v1.trainer_mode`` then says.
        **options: of :class:`dpsjax.Curriculum`: ``solved``, ``seed``, ``data``, ...

    Returns:
        the class, a ``PPOTrainerSync``; ``trainer.curriculum`` has metrics and the table.

    Raises:
        ImportError: verl is of another version.
        ValueError: the name is taken; later, the configuration does not fit.
    """
    require_version("verl", "0.9.")
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    @register_trainer(name)
    class CurriculumTrainer(_Chosen, PPOTrainerSync):
        """The methods that verl calls."""

        chosen_by = selector
        its_options = options

    return CurriculumTrainer


class _Chosen:
    chosen_by: Any
    its_options: dict[str, Any]
    curriculum: Any

    def _build_replay_buffer(self: Any):
        self.trainer_mode = "sync"  # else verl takes a name that it does not know for asynchronous
        return super()._build_replay_buffer()  # pyright: ignore

    def _init_dataloader(self: Any) -> None:
        from verl.utils.dataset.rl_dataset import collate_fn

        data, size = self.config.data, self.config.data.train_batch_size
        groups = self.config.algorithm.get("filter_groups") or {}
        if groups.get("enable") or self.config.trainer.v1.sampler.get("sync_refill_failed_groups"):
            raise ValueError(
                "a selector must see every group: set algorithm.filter_groups.enable and "
                "trainer.v1.sampler.sync_refill_failed_groups to False"
            )
        if data.get("gen_batch_size") not in (None, size):
            raise ValueError(f"data.gen_batch_size must be data.train_batch_size={size}, or null")
        super()._init_dataloader()  # pyright: ignore
        rows = self.train_dataset
        settings: dict[str, Any] = {"fingerprint": fingerprint(rows.dataframe)} | self.its_options
        self.curriculum = Curriculum(self.chosen_by, len(rows), size, **settings)
        self.train_dataloader = Loader(rows, collate_fn, self.curriculum)

    def _load_checkpoint(self: Any) -> None:
        super()._load_checkpoint()  # pyright: ignore
        if self.global_steps and not self.train_dataloader.loaded:
            raise ValueError("the checkpoint has no data.pt: the belief is lost")

    def _fetch_one_gen_batch(self: Any):
        batch = super()._fetch_one_gen_batch()  # pyright: ignore
        index = self.train_dataloader.index.tolist()
        self._prompt_of = dict(zip(list(batch["uid"]), index, strict=True))
        return batch

    def _step_once(self: Any, metrics: dict, timing_raw: dict, sample_batch_size: int):
        import transfer_queue as tq

        batch = super()._step_once(metrics, timing_raw, sample_batch_size)  # pyright: ignore
        keys = _last_parts([k for k in batch.keys if k.split("_")[0] in self._prompt_of])
        found = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores"]
        )
        rewards = [float(scores.sum()) for scores in found["rm_scores"]]
        self.train_dataloader.tell([self._prompt_of[k.split("_")[0]] for k in keys], rewards)
        known = self.curriculum.metrics().items()
        metrics.update({f"curriculum/{name}": value for name, value in known})
        return batch


def _last_parts(keys: Sequence[str]) -> list[str]:
    """Of the parts ``{uid}_{session}_{part}`` of each session the last."""
    last: dict[str, tuple[int, str]] = {}
    for key in keys:
        session, _, part = key.rpartition("_")
        last[session] = max(last.get(session, (-1, "")), (int(part), key))
    return [key for _, key in last.values()]
