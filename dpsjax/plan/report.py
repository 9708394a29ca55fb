"""A plan in words, as a table and as JSON."""

import dataclasses
from typing import Any

from rich.table import Table

from dpsjax.plan.estimate import cache_bytes, weight_copy_bytes
from dpsjax.plan.planner import Plan
from dpsjax.plan.setting import divisors

__all__ = ["advice", "summary", "tables", "to_json"]


def advice(plan: Plan) -> list[str]:
    """What to change where a plan does not fit, the most useful first.

    Args:
        plan: any.

    Returns:
        Sentences; none where it fits.
    """
    if plan.fits:
        return []
    job, layout, chip = plan.job, plan.layout, plan.where.chip
    lines, limit = [], chip.usable_bytes
    stays = plan.resident.parameters + plan.resident.optimizer
    if plan.programs["update"].peak > limit or plan.programs["update"].source == "refused":
        if layout.remat != "full":
            lines.append("update: --remat full recomputes each layer instead of keeping it")
        if layout.micro_batch > layout.ways:
            lines.append(
                f"update: --micro-batch {layout.ways} is one sequence a device "
                f"(now {layout.micro_batch // layout.ways})"
            )
        if layout.query_chunk == 0 or layout.query_chunk > 128:
            lines.append("update: --query-chunk 128 holds fewer attention scores at a time")
        if layout.data > 1:
            lines.append(
                f"update: --mesh fsdp={layout.ways},tensor={layout.tensor} divides parameters and "
                "optimizer over all devices (data=1)"
            )
    if plan.programs["generation"].peak > limit or plan.programs["generation"].source == "refused":
        cache, weights = cache_bytes(job, layout), weight_copy_bytes(job, layout)
        turns = [n for n in divisors(job.group) if n > layout.waves]
        if turns and cache > limit / 4:
            lines.append(
                f"generation: --waves {turns[0]} generates in turns; keys and values then take "
                f"{cache * layout.waves / turns[0] / 1e9:.1f} GB instead of {cache / 1e9:.1f} GB"
            )
        if weights > limit / 3:
            lines.append(
                f"generation: a larger tensor axis divides the {weights / 1e9:.1f} GB of weights, "
                f"such as --mesh tensor={layout.tensor * 2}"
            )
    if stays > limit / 2 or not lines:
        lines.append(
            f"a larger slice: parameters and optimizer alone take {stays / 1e9:.1f} GB on each of "
            f"{plan.where.size} chips"
        )
    return lines


def to_json(plan: Plan) -> dict[str, Any]:
    """Plain JSON-serialisable form; bytes, operations and seconds are per device."""
    rows = {}
    for name, figures in plan.programs.items():
        rows[name] = {
            "source": figures.source,
            "temporary_bytes": figures.temporary,
            "peak_bytes": figures.peak,
            "flops": figures.flops,
            "memory_traffic_bytes": figures.traffic.memory,
            "collective_bytes": dict(figures.traffic.collectives),
            "seconds": {
                **figures.seconds._asdict(),
                "overlapped": figures.seconds.least,
                "in_sequence": figures.seconds.most,
                "limit": figures.seconds.limit,
            },
            "compile_seconds": figures.compile_seconds,
            "xla_each_loop_once": figures.once,
        }
    policy = plan.job.policy
    return {
        "job": {**dataclasses.asdict(plan.job), "policy": policy.to_dict()},
        "num_params": policy.num_params(),
        "topology": plan.where.topology,
        "chips": plan.where.size,
        "chip": plan.where.chip._asdict(),
        "layout": dataclasses.asdict(plan.layout),
        "parameter_bytes": plan.resident.parameters,
        "optimizer_bytes": plan.resident.optimizer,
        "pool_bytes": plan.resident.pool,
        "kv_cache_bytes": cache_bytes(plan.job, plan.layout),
        "activation_bytes": plan.programs["update"].temporary,
        "peak_bytes": plan.peak,
        "usable_bytes": plan.where.chip.usable_bytes,
        "fits": plan.fits,
        "advice": advice(plan),
        "programs": rows,
        "step_seconds": plan.step_seconds,
        "selection_share": plan.selection_share,
        "dps_against_ds": plan.saving._asdict(),
    }


def tables(plan: Plan) -> list[Table]:
    """What a device holds, and what each program does."""
    gib = plan.where.chip.usable_bytes
    held = Table(title="each device holds", title_justify="left")
    held.add_column("what")
    held.add_column("GB", justify="right")
    held.add_column("of the chip", justify="right")
    for name, count in (
        ("parameters (float32)", plan.resident.parameters),
        ("optimizer (two moments)", plan.resident.optimizer),
        ("pool and belief", plan.resident.pool),
        ("keys and values, while generating", cache_bytes(plan.job, plan.layout)),
        ("weights (bfloat16), while generating", weight_copy_bytes(plan.job, plan.layout)),
        ("activations and gradients, while updating", plan.programs["update"].temporary),
        ("peak", plan.peak),
    ):
        held.add_row(name, f"{count / 1e9:.3f}", f"{count / gib:.1%}")
    sources = ", ".join(sorted({figures.source for figures in plan.programs.values()}))
    done = Table(title=f"each device does, in one step ({sources})", title_justify="left")
    done.add_column("program")
    for name in ("peak GB", "TFLOP", "HBM GB", "links GB", "seconds", "limit"):
        done.add_column(name, justify="right")
    for name, figures in plan.programs.items():
        done.add_row(
            name if figures.source != "refused" else f"{name} (refused)",
            f"{figures.peak / 1e9:.2f}",
            f"{figures.flops / 1e12:,.1f}",
            f"{figures.traffic.memory / 1e9:,.1f}",
            f"{sum(figures.traffic.collectives.values()) / 1e9:,.1f}",
            f"{_short(figures.seconds.least)}-{_short(figures.seconds.most)}",
            figures.seconds.limit,
        )
    return [held, done]


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}"


def summary(plan: Plan) -> list[str]:
    """Sentences: does it fit, how long is a step, what does selection cost, what does DPS save."""
    layout, chip = plan.layout, plan.where.chip
    verb = "fits" if plan.fits else "does NOT fit"
    lines = [
        f"{verb}: {plan.peak / 1e9:.2f} GB of {chip.usable_bytes / 1e9:.2f} GB on each of "
        f"{plan.where.size} {chip.name} chips, data={layout.data} fsdp={layout.fsdp} "
        f"tensor={layout.tensor}, micro-batch {layout.micro_batch}, remat {layout.remat}, query "
        f"chunk {layout.query_chunk}, waves {layout.waves}"
    ]
    lines += [f"advice: {line}" for line in advice(plan)]
    gain = plan.saving
    lines += [
        f"model: {plan.step_seconds:,.1f} s a step, every response of full length; selection is "
        f"{plan.selection_share:.2g} of it",
        f"model: DS takes {gain.ds:,.1f} s for the effective groups of one batch, DPS "
        f"{gain.dps:,.1f} s: {gain.factor:.2f} times less",
    ]
    return lines
