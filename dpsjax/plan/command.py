"""``dpsjax plan``: options and output."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from dpsjax.plan.chips import parse_slice
from dpsjax.plan.choose import choose_layout
from dpsjax.plan.compiler import MissingCompilerError, use_no_device
from dpsjax.plan.cost import COMPARISON, EFFICIENCY, Comparison, Efficiency
from dpsjax.plan.models import find_model
from dpsjax.plan.planner import Plan, estimated_plan, make_plan
from dpsjax.plan.report import summary, tables, to_json
from dpsjax.plan.setting import Job, parse_mesh

__all__ = ["PlanArguments", "run"]


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """What is trained; the defaults are the paper's on mathematics."""

    prompts: int = 256
    """Prompts of a batch."""
    group: int = 8
    """Rollouts per prompt."""
    prompt_len: int = 1024
    """Longest prompt, tokens."""
    response_len: int = 8192
    """Longest response, tokens."""
    mini_batch: int = 128
    """Prompts of one optimizer step."""
    pool: int = 7500
    """Prompts that the selector chooses from."""


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """How it lies on the devices; what is not given is chosen so that it should fit."""

    mesh: str | None = None
    """Ways of division: data=1,fsdp=64,tensor=4; fsdp takes what is left."""
    micro_batch: int | None = None
    """Sequences of one forward and backward pass, over all devices."""
    remat: Literal["none", "dots", "full"] = "full"
    """What the backward pass recomputes instead of keeping it."""
    query_chunk: int = 512
    """Query positions whose attention scores exist at a time; 0 for all."""
    waves: int | None = None
    """Turns in which a prompt's rollouts are generated; each needs its share of the cache."""
    decode_weights: Literal["gathered", "sharded"] = "gathered"
    """Generation holds the weights divided by tensor only, or gathers them in every step."""


@dataclasses.dataclass(frozen=True)
class PlanArguments:
    """Will a run fit on a TPU slice, and how long will a step take? No TPU is needed.

    Compiles the selection, generation and update of a training step with the TPU compiler
    (package libtpu) from shapes alone, and prints bytes, operations and collectives per device,
    and the seconds that a model of the chip predicts. Exits with 3 and advice where it does not
    fit. Takes minutes for large models; --estimate answers at once, from shapes.
    """

    model: str
    """A preset such as qwen2.5-7b, qwen3-8b or llama-3.1-8b, or a folder with a config.json."""
    topology: str
    """The slice: v5e:16x16, v5p:4x4x4, v6e:8x8, or by size as v5e-256, v5p-128, v6e-64."""
    job: Annotated[JobOptions, tyro.conf.arg(name="")] = JobOptions()
    layout: Annotated[LayoutOptions, tyro.conf.arg(name="")] = LayoutOptions()
    efficiency: Efficiency = EFFICIENCY
    """Shares of the chip's peak figures that the model of cost assumes."""
    comparison: Comparison = COMPARISON
    """What the comparison with dynamic sampling (DS) assumes."""
    estimate: bool = False
    """Do not compile: estimate from shapes."""
    json: Path | None = None
    """Write everything to this file, too."""


def run(arguments: PlanArguments, console: Console) -> Plan:
    """Plan, print, and write the JSON.

    Args:
        arguments: the options.
        console: where to print.

    Returns:
        The plan.

    Raises:
        ValueError: an option is wrong, or the job cannot be divided over the slice.
        OSError: the JSON cannot be written.
    """
    use_no_device()
    where = parse_slice(arguments.topology)
    job = Job(find_model(arguments.model), **dataclasses.asdict(arguments.job))
    given: dict[str, Any] = dataclasses.asdict(arguments.layout)
    mesh = given.pop("mesh")
    given = {name: value for name, value in given.items() if value is not None}
    if mesh is not None:
        given |= parse_mesh(mesh, where.size)
    layout = choose_layout(job, where, **given)
    assumed = (arguments.efficiency, arguments.comparison)
    plan = None
    if not arguments.estimate:
        try:
            with console.status("compiling ...") as status:
                plan = make_plan(
                    job,
                    where,
                    layout,
                    *assumed,
                    report=lambda name: status.update(f"compiling {name} for {where.topology} ..."),
                )
        except MissingCompilerError as error:
            console.print(f"[yellow]{escape(str(error))}; estimated from shapes instead[/]")
    if plan is None:
        plan = estimated_plan(job, where, layout, *assumed)
    console.print(
        f"{escape(arguments.model)}: {job.policy.num_params():,} parameters on {where.topology} "
        f"({where.accelerator_type}); {job.prompts} prompts x {job.group} responses, "
        f"{job.prompt_len} + {job.response_len} tokens",
        highlight=False,
    )
    for table in tables(plan):
        console.print(table)
    for line in summary(plan):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(to_json(plan), indent=1) + "\n", encoding="utf-8")
    return plan
