"""``dpsjax plan`` and ``dpsjax train --plan``: options and output.

Both plan the step of a run's settings. The first makes those settings of an architecture and sizes
for which no task or checkpoint need be there.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from dpsjax.grpo import GRPOConfig
from dpsjax.loop.build import Spec
from dpsjax.plan.chips import Slice, parse_slice
from dpsjax.plan.choose import choose
from dpsjax.plan.compiler import MissingCompilerError, use_no_device
from dpsjax.plan.job import Axes, Job, parse_mesh
from dpsjax.plan.layout import chosen, spec_and_axes
from dpsjax.plan.models import find_model
from dpsjax.plan.options import PLAN_OPTIONS, PlanOptions
from dpsjax.plan.planner import Plan, estimated_plan, make_plan
from dpsjax.plan.report import summary, tables, to_json
from dpsjax.run.config import TrainConfig
from dpsjax.run.sections import ModelConfig, RolloutConfig
from dpsjax.run.selector_settings import settings
from dpsjax.run.setup import require_pool, spec_of
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.countdown import CountdownConfig
from dpsjax.tasks.registry import name_of
from dpsjax.tasks.tokenizer import CharTokenizer

__all__ = ["PlanArguments", "paper_spec", "plan_job", "run", "run_train"]


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

    Compiles the programs of a training step, those that dpsjax train runs, with the TPU compiler
    (package libtpu) from shapes alone, and prints bytes, operations and collectives per device,
    and the seconds that a model of the chip predicts. Exits with 3 and advice where it does not
    fit. Takes up to --minutes; --estimate answers at once, from shapes. dpsjax train TASK ...
    --plan TOPOLOGY does the same for the settings of a run.
    """

    model: str
    """A preset such as qwen2.5-7b, qwen3-8b or llama-3.1-8b, or a folder with a config.json."""
    topology: str
    """The slice: v5e:16x16, v5p:4x4x4, v6e:8x8, or by size as v5e-256, v5p-128, v6e-64."""
    job: Annotated[JobOptions, tyro.conf.arg(name="")] = JobOptions()
    layout: Annotated[LayoutOptions, tyro.conf.arg(name="")] = LayoutOptions()
    options: Annotated[PlanOptions, tyro.conf.arg(name="")] = PLAN_OPTIONS


def paper_spec(model: str, job: JobOptions = JobOptions(), **compute: Any) -> Spec:
    """The step of the paper's settings for an architecture: DPS, the whole pool scored.

    Args:
        model: of ``--model``.
        job: sizes.
        **compute: of :class:`dpsjax.policy.Compute`; the rest is what a model of that size needs.

    Returns:
        the step that ``dpsjax train`` would make of such settings.

    Raises:
        ValueError: there is no such model, or sizes that do not fit each other.
    """
    require_pool(job.pool, job.prompts)
    compute = {"remat": "full", "query_chunk": 512, **compute}
    config = TrainConfig(
        rollout=RolloutConfig(prompts=job.prompts),
        model=ModelConfig(dtype="bfloat16", scan_layers=True, **compute),
        selector=settings("dps", decay=0.7),  # as in the released scripts on mathematics
        task=CountdownConfig(problems=job.pool, response_tokens=job.response_len),
        grpo=GRPOConfig(rollouts_per_prompt=job.group, mini_batch=job.mini_batch),
    )
    # Nothing is asked: of the prompts only their number and their length matter.
    task = Task(
        name="shapes",
        train=tuple(Problem("", None, "", id=str(place)) for place in range(job.pool)),
        test=(),
        score=lambda problems, responses: [],
        tokenizer=CharTokenizer("1"),
        prompt_tokens=job.prompt_len,
        response_tokens=job.response_len,
    )
    return spec_of(config, task, find_model(model))


def run(arguments: PlanArguments, console: Console) -> Plan:
    """``dpsjax plan``: plan, print, and write the JSON.

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
    where, layout = parse_slice(arguments.topology), arguments.layout
    spec = paper_spec(
        arguments.model,
        arguments.job,
        remat=layout.remat,
        query_chunk=layout.query_chunk,
        decode_weights=layout.decode_weights,
        waves=layout.waves or 1,
    )
    axes = {} if layout.mesh is None else parse_mesh(layout.mesh, where.size)._asdict()
    turns = {"micro_batch": layout.micro_batch, "waves": layout.waves}
    job = choose(Job(spec, Axes(1, 1, 1)), where, **axes, **turns)
    return plan_job(arguments.model, job, where, arguments.options, console)


def run_train(
    config: TrainConfig, topology: str, auto: bool, options: PlanOptions, console: Console
) -> Plan:
    """``dpsjax train ... --plan``: the step of a run's settings on a slice.

    Args:
        config: the settings.
        topology: of ``--plan``.
        auto: choose the layout (``--layout auto``); otherwise it is as set.
        options: of the plan.
        console: where to print.

    Returns:
        The plan.

    Raises:
        ValueError: an option is wrong, or the step cannot be divided over the slice.
        OSError: a file of the settings cannot be read, or the JSON not be written.
    """
    use_no_device()
    where = parse_slice(topology)
    if auto:
        config = chosen(config, where)
    spec, axes = spec_and_axes(config, where.size)
    name = f"{name_of(config.task)}, {config.selector.name}, model {config.model.init}"
    dps = config.selector.name == "dps"
    return plan_job(name, Job(spec, axes), where, options, console, train=True, compared=dps)


def plan_job(
    name: str,
    job: Job,
    where: Slice,
    options: PlanOptions,
    console: Console,
    *,
    train: bool = False,
    compared: bool = True,
) -> Plan:
    """Plan a step, print it, and write the JSON.

    Args:
        name: what is planned, in a few words.
        job: the step on its mesh.
        where: the slice.
        options: how.
        console: where to print.
        train: advise by the options of ``dpsjax train``.
        compared: compare with dynamic sampling.

    Returns:
        The plan.

    Raises:
        OSError: the JSON cannot be written.
    """
    plan, assumed = None, (options.efficiency, options.comparison if compared else None)
    if not options.estimate:
        prefix = "--plan." if train else "--"
        console.print(
            f"compiling for {where.topology}: at most {options.minutes:g} minutes "
            f"({prefix}minutes); {prefix}estimate answers at once",
            highlight=False,
        )
        try:
            with console.status("...") as status:
                plan = make_plan(
                    job,
                    where,
                    *assumed,
                    report=lambda line: status.update(f"compiling for {where.topology}: {line}"),
                    minutes=options.minutes,
                )
        except MissingCompilerError as error:
            console.print(f"[yellow]{escape(str(error))}; estimated from shapes instead[/]")
    if plan is None:
        plan = estimated_plan(job, where, *assumed)
    console.print(
        f"{escape(name)}: {job.spec.policy.num_params():,} parameters on {where.topology} "
        f"({where.accelerator_type}); {job.prompts} prompts x {job.group} responses, "
        f"{job.prompt_len} + {job.response_len} tokens",
        highlight=False,
    )
    for table in tables(plan):
        console.print(table)
    for line in summary(plan, train=train):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(to_json(plan), indent=1) + "\n", encoding="utf-8")
    return plan
