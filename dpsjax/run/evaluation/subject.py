"""Which policy is evaluated: the end of a run, one of its checkpoints, or a model."""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from dpsjax.files import read_json
from dpsjax.policy import PolicyConfig, load_checkpoint, load_weights
from dpsjax.run import checkpoint, outputs
from dpsjax.run.config import MeshConfig, TrainConfig, default_config, from_dict
from dpsjax.run.language import folder_digest
from dpsjax.run.seal import SEAL, damage
from dpsjax.run.setup import make_mesh, policy_of, prepare, weights_path
from dpsjax.tasks.base import Task
from dpsjax.tasks.registry import name_of
from dpsjax.types import PyTree


class Subject(NamedTuple):
    """A policy before its weights are read.

    Attributes:
        config: Settings of its run, or those that a run from it would have; ``model.init`` names
            the weights.
        run: Folder of the run, None for a model.
        step: That it had made; 0 for a model.
        checkpoint: Folder to read the weights from, None where ``model.init`` names them.
    """

    config: TrainConfig
    run: Path | None
    step: int
    checkpoint: Path | None = None

    def name(self) -> str:
        """What it is called in folders."""
        return Path(self.config.model.init).stem if self.run is None else f"step-{self.step}"


def is_run(path: Path) -> bool:
    """Whether a folder is of ``dpsjax train``, and not of a model."""
    record = path / outputs.CONFIG
    return record.is_file() and {"config", "command"} <= set(read_json(record))


def find(model: str, task: str | None, step: int | None) -> Subject:
    """The policy that was named.

    Args:
        model: a run's folder, a checkpoint folder of a language model, a file of weights, or
            ``base``.
        task: its name; None for that of the run.
        step: of the run; None for its end.

    Returns:
        the policy. The settings of the task are those of the run where it is its task.

    Raises:
        ValueError: a model without a task, or with a step; or there is no such step.
        OSError: there is no such folder, or it holds no weights.
    """
    path = Path(model)
    if model != "base" and not path.exists():
        raise FileNotFoundError(f"{model!r}: there is no such folder or file")
    if not (path.is_dir() and is_run(path)):
        if task is None:
            raise ValueError(
                f"task: {model!r} is no run's folder: say --task NAME, or --benchmarks"
            )
        if step is not None:
            raise ValueError(f"step={step} is for a run's folder, and {model!r} is none")
        config = default_config(task, model)
        if model != "base":
            init = dataclasses.replace(config.model, init=model)
            config = dataclasses.replace(config, model=init)
        return Subject(config, None, 0)
    config = from_dict(read_json(path / outputs.CONFIG)["config"])
    if task is not None and task != name_of(config.task):
        other = default_config(task, config.model.init)
        config = dataclasses.replace(config, task=other.task, rollout=other.rollout)
    return _of_run(config, path, step)


def _of_run(config: TrainConfig, path: Path, step: int | None) -> Subject:
    """The end of a run, or a step."""
    if step == 0:
        return Subject(config, path, 0)
    last = path / outputs.SUMMARY
    if last.exists() and step in (None, read_json(last)["steps"]):
        for weights in (path / outputs.MODEL, path / outputs.WEIGHTS):
            if weights.exists():
                init = dataclasses.replace(config.model, init=str(weights), lora_rank=0)
                changed = dataclasses.replace(config, model=init)
                return Subject(changed, path, read_json(last)["steps"])
    found = {int(p.name): p for p in checkpoint.step_folders(path / outputs.CHECKPOINTS)}
    if not found:
        raise FileNotFoundError(f"{path} holds neither weights nor checkpoints yet")
    if step is None:
        good, _ = checkpoint.last_good(path / outputs.CHECKPOINTS)
        step = -1 if good is None else int(good.name)
    if step not in found or (wrong := damage(found[step])):
        raise ValueError(
            f"step={step} is not to be had ({wrong if step in found else 'no checkpoint'}); there "
            f"are {', '.join(map(str, [0, *found]))}"
        )
    return Subject(config, path, step, found[step])


def load(subject: Subject, task: Task, mesh: MeshConfig) -> tuple[PolicyConfig, PyTree, Mesh]:
    """The policy, its weights on the devices, and the devices.

    Args:
        subject: of :func:`find`.
        task: what it is asked.
        mesh: settings.

    Raises:
        ValueError: the weights do not fit the task or each other.
        OSError: there are no weights.
    """
    if subject.checkpoint is not None and subject.run is not None:
        return _of_checkpoint(subject.run, subject.checkpoint, mesh)
    devices = make_mesh(mesh)
    weights = weights_path(subject.config)
    if weights is None:
        raise ValueError("model.init='random': the run began with random weights; give --step")
    policy = policy_of(subject.config, task)
    read = load_checkpoint if weights.is_dir() else load_weights
    return policy, read(weights, mesh=devices)[1], devices


def _of_checkpoint(folder: Path, path: Path, mesh: MeshConfig) -> tuple[PolicyConfig, PyTree, Mesh]:
    """The policy of a checkpoint: the run is built as it was, and read."""
    config = from_dict(read_json(folder / outputs.CONFIG)["config"])
    run, state = prepare(dataclasses.replace(config, mesh=mesh))
    rows = checkpoint.read_meta(path)["pool_rows"]
    state = checkpoint.read_state(path, state, run.stages.axes, rows, len(run.task.train))
    return run.policy, run.whole(state.params), run.mesh


def digest(subject: Subject) -> str:
    """SHA-256 of the weights and what belongs to them."""
    place = subject.checkpoint or weights_path(subject.config)
    if place is None:
        return ""
    if subject.checkpoint is not None:  # whose files are checked against this one
        place = place / SEAL
    if place.is_dir():
        return folder_digest(place)
    with place.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
