"""The settings of a run, typed and checked when they are made; the command line is made of them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpsjax.checks import require_counts, require_integers, require_setting
from dpsjax.grpo import BeliefAdvantages, GRPOConfig
from dpsjax.grpo.aggregation import constant_length
from dpsjax.run.language import is_checkpoint_folder
from dpsjax.run.presets import preset_of
from dpsjax.run.sections import (
    CheckpointConfig,
    EvaluationConfig,
    MeshConfig,
    ModelConfig,
    ResponsesConfig,
    RolloutConfig,
)
from dpsjax.run.selector_settings import DEFAULT, SelectorSettings, settings
from dpsjax.tasks.base import TaskSettings
from dpsjax.tasks.registry import entry_of, name_of, settings_type

RESPONSE_TOKENS = 1024  # of a language model; the published runs on Countdown


def _default_grpo() -> GRPOConfig:
    return GRPOConfig(learning_rate=5e-4)


@dataclass(frozen=True)
class TrainConfig:
    """Finetune a policy by GRPO on prompts that a selector chooses before any rollout."""

    steps: int = 100
    """Training steps."""
    seed: int = 0
    """Decides everything that is random but the problems."""
    out: Path | None = None
    """Folder of the results; runs/TASK-SELECTOR-seedS by default."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    selector: SelectorSettings = field(default_factory=lambda: settings(DEFAULT))
    task: TaskSettings = field(default_factory=lambda: settings_type("countdown")())
    grpo: GRPOConfig = field(default_factory=_default_grpo)
    """How rollouts become an update; but for the learning rate, as the released DPS scripts."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    responses: ResponsesConfig = field(default_factory=ResponsesConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self):
        require_counts(steps=self.steps)
        require_integers(seed=self.seed)
        require_setting(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2**32)")
        group, waves = self.grpo.rollouts_per_prompt, self.model.waves
        if group % waves != 0:
            raise ValueError(f"model.waves={waves} must divide rollouts_per_prompt={group}")
        if self.rollout.buckets > 1 and self.grpo.loss.aggregate is constant_length:
            raise ValueError(
                f"rollout.buckets={self.rollout.buckets} would change the length that "
                "loss.aggregation='constant-length' divides by: use 1, or another aggregation"
            )
        if self.rollout.keep is not None:
            most = self.grpo.rollouts_per_prompt
            require_setting(self.rollout.keep <= most, "keep", self.rollout.keep, f"at most {most}")
        self._check_numbers_of_rollouts()

    def _check_numbers_of_rollouts(self) -> None:
        """Refuse what does not go with selectors that say how many rollouts a prompt gets."""
        name, most = f"selector={self.selector.name!r}", self.selector.most_rollouts()
        if most is not None and self.rollout.keep is not None:
            raise ValueError(
                f"rollout.keep={self.rollout.keep} needs equal groups, and {name} makes unequal "
                "ones: leave it out"
            )
        believed = isinstance(self.grpo.loss.advantage_function, BeliefAdvantages)
        if self.selector.screening() is not None and believed:
            raise ValueError(
                f"loss.advantages={self.grpo.loss.advantages!r} needs a belief that has seen all "
                f"rollouts, and {name} learns from those of the screening: choose another of the "
                "two"
            )

    def folder(self) -> Path:
        """Where the results go."""
        task = name_of(self.task).replace(":", "-")
        name = f"{task}-{self.selector.name}-seed{self.seed}"
        return Path("runs") / name if self.out is None else self.out


def default_config(task: str, model: str = "base") -> TrainConfig:
    """The settings of ``dpsjax train TASK --model MODEL`` without further options.

    Args:
        task: a name of :mod:`dpsjax.tasks.registry`.
        model: of ``--model``. A small policy has the task's own defaults. The checkpoint folder of
            a language model has those of the published DPS runs: learning rate 1e-6, responses of
            1,024 tokens; and what a model of that size needs: bfloat16, scanned layers,
            rematerialisation.

    Raises:
        ValueError: there is no such task.

    >>> default_config("operators").rollout.prompts
    32
    """
    start = TrainConfig(task=settings_type(task)())
    config = _replaced(start, entry_of(task).run, "")
    if not is_checkpoint_folder(model):
        return config
    compute = {"dtype": "bfloat16", "remat": "full", "scan_layers": True}
    task_settings = config.task
    if "response_tokens" in vars(task_settings):
        task_settings = dataclasses.replace(task_settings, response_tokens=RESPONSE_TOKENS)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, init=model, **compute),
        grpo=GRPOConfig(),
        task=task_settings,
    )


def with_preset(config: TrainConfig, name: str) -> TrainConfig:
    """The settings of a published run in place of those of ``config``; the others stay.

    Args:
        config: of a task.
        name: of :data:`dpsjax.run.presets.PRESETS`.

    Raises:
        ValueError: there is no such preset, or it is of another task.

    >>> with_preset(default_config("math"), "dps-math-7b").selector.decay
    0.7
    """
    values = dict(preset_of(name, name_of(config.task)).values)
    selector = _named(values, "selector", config.selector.name)
    if selector != config.selector.name:
        config = dataclasses.replace(config, selector=settings(selector))
    return _replaced(config, values, "")


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain JSON-serialisable form.

    >>> to_dict(TrainConfig())["selector"]["name"]
    'frontier'
    """
    values = dataclasses.asdict(config)
    values["grpo"]["loss"] = {k: _plain(v) for k, v in vars(config.grpo.loss).items()}
    values["out"] = str(config.folder())
    # Whole paths: a record is read from another folder.
    trace = values["selector"]["around"]["difficulty"]
    values["selector"]["around"]["difficulty"] = None if trace is None else str(trace.absolute())
    if Path(config.model.init).exists():
        values["model"]["init"] = str(Path(config.model.init).absolute())
    values["selector"] = {"name": config.selector.name, **values["selector"]}
    task = {name: _whole_path(value) for name, value in values["task"].items()}
    values["task"] = {"name": name_of(config.task), **task}
    return values


def _whole_path(value: Any) -> Any:
    """A path, or each of several, as it is found from any folder."""
    if isinstance(value, tuple | list):
        return [_whole_path(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _plain(value: Any) -> Any:
    """A function of the user's own by its name, of which no run can be built again."""
    if isinstance(value, BeliefAdvantages):
        value = value.function
    if not callable(value):
        return value
    return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The settings that :func:`to_dict` wrote down.

    Args:
        values: settings that are missing keep the defaults of the task.

    Returns:
        the settings.

    Raises:
        ValueError: there is no such setting or selector, or a value is out of range.

    >>> from_dict(to_dict(TrainConfig(seed=3))).seed
    3
    """
    values = dict(values)
    task, selector = _named(values, "task", "countdown"), _named(values, "selector", DEFAULT)
    start = dataclasses.replace(default_config(task), selector=settings(selector))
    return _replaced(start, values, "")


def _named(values: dict[str, Any], section: str, default: str) -> str:
    """Takes the name out of a section of ``values``, if it is one."""
    given = values.get(section)
    if not isinstance(given, Mapping):
        return default
    values[section] = {name: value for name, value in given.items() if name != "name"}
    return given.get("name", default)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON may stand for a setting of a type; the settings check the rest."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _fits(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, list | tuple)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    wider: dict[Any, Any] = {float: int | float, Path: str | Path}
    return isinstance(value, wider.get(kind, origin or kind))


def _item_of(kind: Any) -> Any:
    """The type of what a tuple holds, also of one that may be None."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return parts[0]
    return next((_item_of(part) for part in parts if typing.get_origin(part) is tuple), kind)


def _replaced(default: Any, values: Mapping[str, Any], where: str) -> Any:
    """``default`` with other values; its nested settings and tuples show how to read JSON."""
    kinds = typing.get_type_hints(type(default), include_extras=True)
    changes = {}
    for name, value in values.items():
        if name not in vars(default):
            raise ValueError(f"there is no setting {where}{name}: it is not of this version")
        old = vars(default)[name]
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}{name}={value!r} must be an object of settings")
            value = _replaced(old, value, f"{where}{name}.")
        elif not _fits(value, kinds[name]):
            raise ValueError(f"{where}{name}={value!r} must be like {old!r}")
        elif isinstance(value, list):
            paths = _fits(Path(), _item_of(kinds[name]))
            value = tuple(Path(item) if paths else item for item in value)
        elif isinstance(value, str) and _fits(Path(), kinds[name]):
            value = Path(value)
        changes[name] = value
    return dataclasses.replace(default, **changes)
