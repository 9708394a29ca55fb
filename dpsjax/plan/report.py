"""A plan in words, as a table and as JSON."""

from typing import Any

from rich.table import Table

from dpsjax.plan.estimate import cache_bytes, weight_copy_bytes
from dpsjax.plan.job import divisors
from dpsjax.plan.planner import Plan

__all__ = ["advice", "summary", "tables", "to_json"]

# What the settings that advice speaks of are called by ``dpsjax train``.
_TRAIN = {
    "remat": "--model.remat",
    "query-chunk": "--model.query-chunk",
    "waves": "--model.waves",
    "micro-batch": "--grpo.micro-batch",
}


def advice(plan: Plan, *, train: bool = False) -> list[str]:
    """What to change where a plan does not fit, the most useful first.

    Args:
        plan: any.
        train: name the options of ``dpsjax train``, not those of ``dpsjax plan``.

    Returns:
        Sentences; none where it fits.
    """
    if plan.fits:
        return []
    stays, limit = sum(plan.resident), plan.where.chip.usable_bytes
    lines = []
    if _too_large(plan, "update"):
        lines += [f"update: {line}" for line in _of_update(plan, train)]
    if _too_large(plan, "generate"):
        lines += [f"generation: {line}" for line in _of_generation(plan, train)]
    if stays > limit / 2 or not lines:
        lines.append(
            f"a larger slice: parameters and optimizer alone take {stays / 1e9:.1f} GB on each of "
            f"{plan.where.size} chips"
        )
    return lines


def _too_large(plan: Plan, name: str) -> bool:
    figures = plan.programs[name]
    return figures.source == "refused" or figures.peak > plan.where.chip.usable_bytes


def _option(name: str, value: Any, train: bool) -> str:
    return f"{_TRAIN[name] if train else '--' + name} {value}"


def _mesh_option(train: bool, **axes: int) -> str:
    if train:
        return " ".join(f"--mesh.{axis} {size}" for axis, size in axes.items())
    return "--mesh " + ",".join(f"{axis}={size}" for axis, size in axes.items())


def _of_update(plan: Plan, train: bool) -> list[str]:
    job, compute, axes = plan.job, plan.job.spec.compute, plan.job.axes
    lines = []
    if compute.remat != "full":
        lines.append(
            f"{_option('remat', 'full', train)} recomputes each layer instead of keeping it"
        )
    if job.micro_batch > axes.ways:
        lines.append(
            f"{_option('micro-batch', axes.ways, train)} is one sequence a device "
            f"(now {job.micro_batch // axes.ways})"
        )
    if compute.query_chunk == 0 or compute.query_chunk > 128:
        lines.append(f"{_option('query-chunk', 128, train)} holds fewer attention scores at a time")
    if axes.data > 1:
        lines.append(
            f"{_mesh_option(train, data=1, fsdp=axes.ways, tensor=axes.tensor)} divides parameters "
            "and optimizer over all devices"
        )
    return lines


def _of_generation(plan: Plan, train: bool) -> list[str]:
    job, limit = plan.job, plan.where.chip.usable_bytes
    cache, weights, waves = cache_bytes(job), weight_copy_bytes(job), job.spec.compute.waves
    turns = [n for n in divisors(job.group) if n > waves]
    lines = []
    if turns and cache > limit / 4:
        lines.append(
            f"{_option('waves', turns[0], train)} generates in turns; keys and values then take "
            f"{cache * waves / turns[0] / 1e9:.1f} GB instead of {cache / 1e9:.1f} GB"
        )
    if weights > limit / 3:
        lines.append(
            f"a larger tensor axis divides the {weights / 1e9:.1f} GB of weights, such as "
            f"{_mesh_option(train, tensor=job.axes.tensor * 2)}"
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
    return {
        "job": plan.job.sizes(),
        "num_params": plan.job.spec.policy.num_params(),
        "topology": plan.where.topology,
        "chips": plan.where.size,
        "chip": plan.where.chip._asdict(),
        "layout": plan.job.layout(),
        "parameter_bytes": plan.resident.parameters,
        "optimizer_bytes": plan.resident.optimizer,
        "pool_bytes": plan.resident.pool,
        "reference_bytes": plan.resident.reference,
        "kv_cache_bytes": cache_bytes(plan.job),
        "activation_bytes": plan.programs["update"].temporary,
        "peak_bytes": plan.peak,
        "usable_bytes": plan.where.chip.usable_bytes,
        "fits": plan.fits,
        "advice": advice(plan),
        "notes": list(plan.notes),
        "programs": rows,
        "step_seconds": plan.step_seconds,
        "selection_share": plan.selection_share,
        "dps_against_ds": None if plan.saving is None else plan.saving._asdict(),
    }


def tables(plan: Plan) -> list[Table]:
    """What a device holds, and what each program does."""
    gib = plan.where.chip.usable_bytes
    held = Table(title="each device holds", title_justify="left")
    held.add_column("what")
    held.add_column("GB", justify="right")
    held.add_column("of the chip", justify="right")
    dtype = plan.job.spec.compute.dtype
    for name, count in (
        ("parameters (float32)", plan.resident.parameters),
        ("optimizer (two moments)", plan.resident.optimizer),
        ("pool and belief", plan.resident.pool),
        ("reference parameters", plan.resident.reference),
        ("keys and values, while generating", cache_bytes(plan.job)),
        (f"weights ({dtype}), while generating", weight_copy_bytes(plan.job)),
        ("activations and gradients, while updating", plan.programs["update"].temporary),
        ("peak", plan.peak),
    ):
        if count == 0:
            continue
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


def summary(plan: Plan, *, train: bool = False) -> list[str]:
    """Sentences: does it fit, how long is a step, what does selection cost, what does DPS save.

    Args:
        plan: any.
        train: advise by the options of ``dpsjax train``.
    """
    job, chip, layout = plan.job, plan.where.chip, plan.job.layout()
    verb = "fits" if plan.fits else "does NOT fit"
    lines = [
        f"{verb}: {plan.peak / 1e9:.2f} GB of {chip.usable_bytes / 1e9:.2f} GB on each of "
        f"{plan.where.size} {chip.name} chips, data={job.axes.data} fsdp={job.axes.fsdp} "
        f"tensor={job.axes.tensor}, micro-batch {layout['micro_batch']}, remat {layout['remat']}, "
        f"query chunk {layout['query_chunk']}, waves {layout['waves']}",
        *plan.notes,
    ]
    if job.rows > job.prompts:
        lines.append(f"padding: {job.rows - job.prompts} of {job.rows} rows of a batch are empty")
    lines += [f"advice: {line}" for line in advice(plan, train=train)]
    lines.append(
        f"model: {plan.step_seconds:,.1f} s a step, every response of full length; selection is "
        f"{plan.selection_share:.2g} of it"
    )
    if (gain := plan.saving) is not None:
        lines.append(
            f"model: DS takes {gain.ds:,.1f} s for the effective groups of one batch, DPS "
            f"{gain.dps:,.1f} s: {gain.factor:.2f} times less"
        )
    return lines
