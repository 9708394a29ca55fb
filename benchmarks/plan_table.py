"""Claim: the paper's step fits stated TPU slices, and how long the model of cost says it takes.

    python benchmarks/plan_table.py --compile qwen2.5-7b@v5e-256 qwen2.5-1.5b@v5e-64

Estimates every pair of model and slice from shapes, compiles those named (minutes each; package
`libtpu`, no TPU is needed), keeps all of it in one JSON file and writes the tables of docs/plan.md.
What the file has is kept: delete it to begin anew; without `--compile` the tables are written.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from dpsjax.plan.chips import parse_slice
from dpsjax.plan.choose import choose
from dpsjax.plan.command import paper_spec
from dpsjax.plan.compiler import use_no_device
from dpsjax.plan.job import Axes, Job
from dpsjax.plan.planner import estimated_plan, make_plan
from dpsjax.plan.report import to_json

MODELS = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b")
SLICES = ("v5e-16", "v5e-64", "v5e-256", "v5p-32", "v5p-128", "v6e-16", "v6e-64", "v6e-256")
AGAINST_DS = [f"{m}@{s}" for m in MODELS[1:4:2] for s in ("v5e-64", "v5p-128")]
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


@dataclass
class Options:
    """What to compile, and the files."""

    compile: tuple[str, ...] = ()
    out: Path = Path(__file__).parent / "results" / "plan.json"
    docs: Path = Path(__file__).parent.parent / "docs" / "plan.md"


def plan(name: str, compiled: bool) -> dict:
    """One row at the paper's settings."""
    model, place = name.split("@")
    where = parse_slice(place)
    job = choose(Job(paper_spec(model), Axes(1, 1, 1)), where)
    return to_json((make_plan if compiled else estimated_plan)(job, where))


def fits_table(rows: dict) -> str:
    """Every model on every slice: peak GB and seconds of a step."""
    lines = ["| model | " + " | ".join(SLICES) + " |", "|---" * (len(SLICES) + 1) + "|"]
    for model in MODELS:
        cells = []
        for place in SLICES:
            row = rows.get(f"{model}@{place}")
            if row is None:
                cells.append("-")
                continue
            mark = "**" if "compiled" in row["programs"]["update"]["source"] else ""
            peak = f"{row['peak_bytes'] / 1e9:.1f} GB"
            text = f"{peak}, {row['step_seconds']:,.0f} s" if row["fits"] else f"no ({peak})"
            cells.append(f"{mark}{text}{mark}")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def detail_table(rows: dict) -> str:
    """What the compiled rows are made of."""
    lines = [
        "| model, slice | mesh (data, fsdp, tensor), micro-batch, waves | weights + AdamW GB |"
        " cache GB | update temporaries GB | peak GB of | TFLOP generate / update |"
        " HBM TB generate / update | links GB generate / update | seconds generate / update |",
        "|---" * 10 + "|",
    ]
    for name, row in rows.items():
        made, done = row["programs"]["generate"], row["programs"]["update"]
        if done["source"] == "estimated":
            continue
        lay = row["layout"]
        links = [sum(part["collective_bytes"].values()) / 1e9 for part in (made, done)]
        lines.append(
            f"| {name.replace('@', ', ')} | ({lay['data']}, {lay['fsdp']}, {lay['tensor']}), "
            f"{lay['micro_batch']}, {lay['waves']} | "
            f"{(row['parameter_bytes'] + row['optimizer_bytes']) / 1e9:.2f} | "
            f"{row['kv_cache_bytes'] / 1e9:.2f} | {row['activation_bytes'] / 1e9:.2f} | "
            f"{row['peak_bytes'] / 1e9:.2f} of {row['usable_bytes'] / 1e9:.2f} | "
            f"{made['flops'] / 1e12:,.0f} / {done['flops'] / 1e12:,.0f} | "
            f"{made['memory_traffic_bytes'] / 1e12:,.0f} / "
            f"{done['memory_traffic_bytes'] / 1e12:,.0f} | {links[0]:,.0f} / {links[1]:,.0f} | "
            f"{made['seconds']['overlapped']:,.0f} / {done['seconds']['overlapped']:,.0f} |"
        )
    return "\n".join(lines)


def ds_table(rows: dict) -> str:
    """DPS against DS."""
    lines = [
        "| model, slice | rows | DPS s | DS s | DS / DPS | selection of a step |",
        "|---" * 6 + "|",
    ]
    for name in AGAINST_DS:
        row = rows[name]
        gain, source = row["dps_against_ds"], row["programs"]["update"]["source"]
        lines.append(
            f"| {name.replace('@', ', ')} | {source} | {gain['dps']:,.0f} | {gain['ds']:,.0f} | "
            f"{gain['factor']:.2f} | {row['selection_share']:.1g} |"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    use_no_device()
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows = {}
    for name in (f"{model}@{place}" for model in MODELS for place in SLICES):
        try:
            rows[name] = known.get(name) or plan(name, compiled=False)
        except ValueError as error:
            print(f"{name}: {error}")
    for name in options.compile:
        rows[name] = plan(name, compiled=True)
        row = rows[name]
        print(f"{name}: fits={row['fits']} {row['peak_bytes'] / 1e9:.2f} GB", flush=True)
        write(rows, options)
    write(rows, options)


def write(rows: dict, options: Options) -> None:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = options.docs.read_text(encoding="utf-8")
    for name, table in (
        ("fits", fits_table(rows)),
        ("detail", detail_table(rows)),
        ("ds", ds_table(rows)),
    ):
        head, rest = text.split(BEGIN.format(name))
        tail = rest.split(END.format(name))[1]
        text = f"{head}{BEGIN.format(name)}\n{table}\n{END.format(name)}{tail}"
    options.docs.write_text(text, encoding="utf-8")
    print(f"wrote {options.out} and {options.docs}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
