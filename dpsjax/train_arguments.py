"""What can be typed after ``dpsjax train TASK``, and the settings that it stands for."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dpsjax.plan.options import PLAN_OPTIONS, PlanOptions
from dpsjax.run.config import TrainConfig, default_config, from_dict, with_preset
from dpsjax.run.presets import described
from dpsjax.run.processes import DistributedConfig
from dpsjax.run.selector_settings import DEFAULT, selector_names, settings
from dpsjax.tasks.registry import entry_of, name_of


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Finetune a policy by GRPO; a selector chooses the prompts before any rollout.

    Ends within minutes on a laptop. The folder of the results holds config.json, metrics.jsonl,
    trace.jsonl (each group of rollouts), responses.jsonl (some of them to be read), prompts.parquet
    or .csv (what is known of each prompt), report.md (the hardest ones), summary.json, checkpoints,
    the weights and plots. The same command continues a run that was stopped or killed, from its
    last good checkpoint.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    selector: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(selector_names()) + "}")] = (
        DEFAULT
    )
    """How prompts are chosen; --selector NAME --help shows the options of that selector."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR/config.json")] = None
    """Repeat the run that wrote this file; options typed beside it replace its settings."""
    preset: Annotated[
        str, tyro.conf.arg(metavar="NAME", help=f"Settings of a published run: {described()}.")
    ] = ""
    allow: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Continue although this setting, or all below it, differs from the run's: --allow grpo."""
    hosts: Annotated[DistributedConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=DistributedConfig
    )
    layout: Literal["set", "auto"] = "set"
    """auto sets the mesh, --grpo.micro-batch and --model.waves as planning finds them for the
    devices that are there, as far as they are not set, and says so."""
    plan: Annotated[str | None, tyro.conf.arg(metavar="v5e:4x4|v5p-128|...")] = None
    """Do not train: tell whether this run fits on that TPU slice, and how long its steps take. No
    TPU is needed; pip install 'dpsjax[plan]' brings the TPU compiler."""
    planning: Annotated[PlanOptions, tyro.conf.arg(name="plan")] = PLAN_OPTIONS
    log: tyro.conf.UseAppendAction[tuple[Literal["tensorboard", "wandb", "mlflow"], ...]] = ()
    """Send each step to this tracker as it is done, and the plots in the end; see dpsjax log."""
    restart: bool = False
    """Begin anew: what is in the folder of the results is moved to DIR/earlier-N, not continued."""


def parse_train(words: Sequence[str], task: str = "countdown") -> TrainArguments:
    """The settings that were typed.

    Args:
        words: options of ``dpsjax train TASK``.
        task: its name.

    Returns:
        the settings.

    Raises:
        ValueError: there is no such selector, or ``--from`` is no record of a run of the task.
        OSError: ``--from`` cannot be read.
        SystemExit: help was asked for (0), or an option is wrong (2); tyro has said so.
    """
    source = option(words, "--from", "")
    model = option(words, "--model", option(words, "--init", "base"))
    config = _recorded(Path(source)) if source else default_config(task, model)
    if preset := option(words, "--preset", ""):
        if source:
            raise ValueError(f"from={source!r} has all settings: leave out preset={preset!r}")
        config = with_preset(config, preset)
    if name_of(config.task) != entry_of(task).name:
        raise ValueError(
            f"from={source!r} is of another task: dpsjax train {name_of(config.task)} repeats it"
        )
    name = option(words, "--selector", config.selector.name)
    if name != config.selector.name:
        config = dataclasses.replace(config, selector=settings(name))
    default = TrainArguments(config, config.selector.name)
    return tyro.cli(
        TrainArguments,
        args=list(words),
        default=default,
        prog=f"dpsjax train {task}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def _recorded(path: Path) -> TrainConfig:
    """The settings in a ``config.json``, to be repeated in a folder of their own."""
    try:
        config = from_dict(read_record(path)["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"from={str(path)!r} is no config.json of a run: {error}") from error
    folder = config.folder()
    return dataclasses.replace(config, out=folder.with_name(f"{folder.name}-repeated"))


def read_record(path: Path) -> dict:
    """The settings and the inputs in a ``config.json``.

    Raises:
        ValueError: it is no record of a run.
        OSError: it cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"config": record["config"], "inputs": record.get("inputs")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"from={str(path)!r} is no config.json of a run: {error}") from error


def option(words: Sequence[str], name: str, otherwise: str) -> str:
    """The value of an option that decides which others there are, read before the rest."""
    value = otherwise
    for place, word in enumerate(words):
        if word == name and place + 1 < len(words):
            value = words[place + 1]
        elif word.startswith(name + "="):
            value = word.removeprefix(name + "=")
    return value
