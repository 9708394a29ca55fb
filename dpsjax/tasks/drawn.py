"""Tasks whose problems are drawn: as many as are wanted, the same for the same settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dpsjax import checks
from dpsjax.tasks.base import Task, TaskSettings


@dataclass(frozen=True)
class DrawnSettings(TaskSettings):
    """Settings of a task that :meth:`draw` makes; a class below sets it, and has its keywords.

    ``draw(problems, held_out, data_seed, **others)`` gives the task.
    """

    draw: ClassVar[Callable[..., Task]]

    problems: int = 500
    """Prompts in the training pool that the selector chooses from."""
    held_out: int = 500
    """Held-out problems, none of which is a training problem."""
    data_seed: int = 0
    """Seed of the problems; the seed of the run does not change them."""

    def __post_init__(self):
        checks.require_counts(problems=self.problems)
        checks.require_counts(least=0, held_out=self.held_out)
        checks.require_integers(data_seed=self.data_seed)

    def build(self) -> Task:
        """The task.

        Raises:
            ValueError: a setting is out of range.
        """
        settings = dict(vars(self))
        sizes = [settings.pop(name) for name in ("problems", "held_out", "data_seed")]
        return self.draw(*sizes, **settings)
