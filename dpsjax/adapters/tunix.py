"""google-tunix 0.1.7: ``stream = attach(learner, columns, selector, batch_size=16)``.

Then ``learner.train(stream)``. The stream asks for a batch when tunix takes one, which it does not
do ahead; the learner tells the rewards, in the parts in which they come; the belief is saved beside
tunix's checkpoints and found again on resume, when tunix takes the batches that it has trained on
once more: those are answered without choosing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpsjax import checks
from dpsjax.adapters import require_version
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import Selector

ID = "dpsjax_index"  # the column by which rewards find their prompt; reward functions see it too


class Stream:
    """Batches without end, as ``train_ds`` of ``learner.train``.

    Attributes:
        curriculum: the selector and its belief.
    """

    def __init__(self, learner: Any, columns: Mapping[str, Sequence], curriculum: Curriculum):
        self.curriculum, self._learner = curriculum, learner
        self._columns = {name: list(values) for name, values in columns.items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for _ in range(self._trained_on()):
            yield self._rows(np.zeros(self.curriculum.batch_size, np.int32))
        while True:
            yield self._rows(self.curriculum.ask())

    def _trained_on(self) -> int:
        """Batches that tunix skips on resume: it counts a micro-batch once an iteration."""
        config, size = self._learner._training_config, self.curriculum.batch_size
        micro = config.train_micro_batch_size or config.mini_batch_size or size
        batches, rest = divmod(self._learner._last_iter_step * micro, size)
        if rest:
            raise ValueError(
                f"the checkpoint is of the middle of a batch ({self._learner._last_iter_step} "
                f"micro-batches of {micro}, batch_size={size}): save at the end of batches"
            )
        return batches

    def _rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        rows = {name: np.array([v[i] for i in index]) for name, v in self._columns.items()}
        return {**rows, ID: index}


def attach(
    learner: Any,
    columns: Mapping[str, Sequence],
    selector: Selector,
    *,
    batch_size: int,
    **options: Any,
) -> Stream:
    """Let a selector choose the prompts of a ``GRPOLearner``.

    The sum of the reward functions is told; None is no verdict in :class:`dpsjax.Curriculum`, and
    an error in tunix. Evaluation does not tell. Each column must give arrays: texts or numbers.
    What a selector says of loss weights, vetoes and unequal numbers of rollouts is not used.

    Args:
        learner: a ``GRPOLearner``, made and not started; what it resumes from is loaded by then.
        columns: sequences [N] by name, ``prompts`` among them.
        selector: a recipe or a chain.
        batch_size: B prompts of a full batch.
        **options: of :class:`dpsjax.Curriculum`: ``solved``, ``seed``, ``data``, ...

    Returns:
        the stream, for ``learner.train``; ``stream.curriculum`` has metrics and the table.

    Raises:
        ImportError: tunix is of another version.
        TypeError: ``columns`` is no dictionary.
        ValueError: there are no prompts, or columns differ in length; the belief of the checkpoint
            is missing or of something else.
    """
    require_version("google-tunix", "0.1.7")
    checks.require_type(Mapping, "a dictionary of columns", columns=columns)
    sizes = {name: len(values) for name, values in columns.items()}
    if "prompts" not in sizes or len(set(sizes.values())) > 1:
        raise ValueError(f"columns must hold prompts, and be of one length; got {sizes}")
    settings: dict[str, Any] = {"fingerprint": fingerprint([dict(columns)])} | options
    curriculum = Curriculum(
        selector,
        sizes["prompts"],
        batch_size,
        group=learner.algo_config.num_generations,
        **settings,
    )
    _tell_rewards(learner, curriculum)
    _keep_with_checkpoints(learner.rl_cluster.actor_trainer, curriculum)
    return Stream(learner, columns, curriculum)


def _tell_rewards(learner: Any, curriculum: Curriculum) -> None:
    compute = learner._compute_rewards

    def compute_and_tell(prompts, completions, mode, step=None, **columns):
        rewards = compute(prompts, completions, mode, step, **columns)
        if ID in columns and mode.name == "TRAIN":
            curriculum.tell(np.asarray(columns[ID]), np.asarray(rewards))
            found = curriculum.metrics().items()
            logged = {f"curriculum/{name}": (value, np.mean) for name, value in found}
            learner.rl_cluster.buffer_metrics(logged, mode=mode)
        return rewards

    learner._compute_rewards = compute_and_tell


def _keep_with_checkpoints(trainer: Any, curriculum: Curriculum) -> None:
    manager, root = trainer.checkpoint_manager, trainer.config.checkpoint_root_directory
    if root is None:
        return
    folder = Path(str(root)) / "dpsjax"
    if trainer.train_steps:
        curriculum.load(folder / str(trainer.train_steps))
    save = manager.save

    def save_both(step, *args, **kwargs):
        saved = save(step, *args, **kwargs)
        if saved:
            curriculum.save(folder / str(step))
        return saved

    manager.save = save_both
