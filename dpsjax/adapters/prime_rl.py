"""prime-rl 0.8: ``install(selector, batch_size=32)`` before its orchestrator starts.

Its curriculum has a task sampler of our making then: one task at a time, observations late, out of
order or never, its state in prime-rl's own checkpoints. Tasks that were out when a checkpoint was
made come first after a resume, each once more.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpsjax.adapters import packed, require_version, unpack
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import Selector


def install(selector: Selector, *, batch_size: int, envs: Iterable[str] = (), **options) -> None:
    """Let a selector choose the tasks of every orchestrator that starts in this process.

    Args:
        selector: a recipe or a chain.
        batch_size: B tasks that are chosen at a time: about the groups of a training step.
        envs: names of environments; all of them if not given.
        **options: of :class:`dpsjax.Curriculum`: ``solved``, ``seed``, ``data``, ...

    Raises:
        ImportError: prime-rl is of another version.
        ValueError: later, when an orchestrator starts: as :func:`task_sampler` does.
    """
    require_version("prime-rl", "0.8.")
    from prime_rl.orchestrator.train_source import TrainSource

    make, wanted = TrainSource.__init__, frozenset(envs)

    def make_and_attach(self, *args, **kwargs):
        make(self, *args, **kwargs)
        if missing := wanted - set(self.curricula):
            raise ValueError(f"no environments {sorted(missing)}: {sorted(self.curricula)}")
        for name in sorted(wanted or self.curricula):
            attach(self, name, selector, batch_size=batch_size, **options)

    TrainSource.__init__ = make_and_attach


def attach(source: Any, env: str, selector: Selector, *, batch_size: int, **options) -> Curriculum:
    """Let a selector choose the tasks of one environment of a ``TrainSource``.

    Args:
        source: a ``TrainSource``, made and not loaded.
        env: a name of ``source.curricula``.
        selector: a recipe or a chain.
        batch_size: B tasks that are chosen at a time.
        **options: of :class:`dpsjax.Curriculum`.

    Returns:
        the curriculum.

    Raises:
        ImportError: prime-rl is of another version.
        ValueError: as :func:`task_sampler` does.
    """
    of = source.curricula[env]
    of.sampler = task_sampler(of.sampler.tasks, selector, batch_size=batch_size, **options)
    return of.sampler.curriculum


def task_sampler(tasks: Any, selector: Selector, *, batch_size: int, **options: Any) -> Any:
    """A ``TaskSampler`` that asks a selector.

    Args:
        tasks: N of them, with keys of their own.
        selector: a recipe or a chain.
        batch_size: B tasks that are chosen at a time.
        **options: of :class:`dpsjax.Curriculum`.

    Returns:
        the sampler; ``sampler.curriculum`` has metrics and the table.

    Raises:
        ImportError: prime-rl is of another version.
        ValueError: tasks have no end, or one key twice; or as :class:`dpsjax.Curriculum` does.
    """
    require_version("prime-rl", "0.8.")
    from prime_rl.orchestrator.curriculum.samplers.base import TaskSampler

    if not isinstance(tasks, Sequence):
        raise ValueError("tasks must be finite: a selector chooses among tasks that come back")
    index = {task.key: place for place, task in enumerate(tasks)}
    if len(index) < len(tasks):
        raise ValueError("tasks must have keys of their own: two have the same")
    settings: dict[str, Any] = {"fingerprint": fingerprint(list(index))} | options
    curriculum = Curriculum(selector, len(tasks), batch_size, **settings)

    class CurriculumSampler(_Sampler, TaskSampler):
        """The methods that prime-rl calls."""

    return CurriculumSampler(curriculum, tuple(tasks), index)


class _Sampler:
    """What waits to be handed out, and what is out, as ``[ticket, task]`` in order."""

    def __init__(self, curriculum: Curriculum, tasks: tuple, index: Mapping[str, int]) -> None:
        self.curriculum, self.tasks, self.index = curriculum, tasks, index
        self.waiting: list[list[int]] = []
        self.out: list[list[int]] = []

    def __next__(self) -> Any:
        if not self.waiting:
            ticket, index = self.curriculum.ask_ticket()
            self.waiting = [[ticket, task] for task in index.tolist()]
        self.out.append(self.waiting.pop(0))
        # Stale groups are never observed: what a curriculum has given up is forgotten here too.
        del self.out[: -self.curriculum.outstanding * self.curriculum.batch_size]
        return self.tasks[self.out[-1][1]]

    def observe(self, group: list) -> None:
        traces = (trace for episode in group for trace in episode.traces if trace.agent.trainable)
        rewards = [math.nan if trace.has_error else float(trace.reward) for trace in traces]
        task = self.index[group[0].task.key]
        # Of one task twice the newer: of an older one that is stale nothing ever comes.
        places = [i for i, (_, other) in enumerate(self.out) if other == task]
        if not places:
            raise ValueError(f"a group of task {group[0].task.key!r}, which is not out")
        ticket, _ = self.out.pop(places[-1])
        if rewards:
            self.curriculum.tell(ticket, [task] * len(rewards), rewards)

    def state_dict(self) -> dict[str, Any]:
        return {"curriculum": packed(self.curriculum), "waiting": self.waiting, "out": self.out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        unpack(self.curriculum, state_dict["curriculum"])
        for ticket in self.curriculum.pending:
            self.curriculum.drop(ticket)  # handed out again task by task, not batch by batch
        self.waiting = [list(pair) for pair in state_dict["out"] + state_dict["waiting"]]
        self.out = []

    def metrics(self) -> dict[str, float]:
        known = {
            **self.curriculum.metrics(),
            "pending": float(len(self.out)),
        }  # groups, not batches
        return {name: value for name, value in known.items() if not math.isnan(value)}
