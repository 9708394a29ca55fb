"""What a run leaves behind: its settings, a line a step, a summary, weights, state and plots."""

import contextlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpsjax.loop import metrics
from dpsjax.loop.metrics import Record
from dpsjax.loop.state import TrainState, digest
from dpsjax.policy.weights import on_host
from dpsjax.report import plots, pool_file, prompt_table, report, response_file, trace_file
from dpsjax.run.config import to_dict
from dpsjax.run.setup import Run
from dpsjax.selectors.pool import SHARED
from dpsjax.types import Array, PyTree

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
WEIGHTS, MODEL, PLOTS = "weights.safetensors", "model", "plots"
CHECKPOINTS, FAULTS = "checkpoints", "faults"
RESPONSES = "responses.jsonl"
TRACE, REPORT, TABLES = "trace.jsonl", "report.md", ("prompts.parquet", "prompts.csv")

# Packages that decide what a run computes.
_PACKAGES = ("dpsjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def open_folder(folder: Path) -> Path | None:
    """Make the folder of a run; what an earlier run left there is moved aside.

    Args:
        folder: DIR. An earlier run moves to ``DIR/earlier-1``, ``DIR/earlier-2``, ...

    Returns:
        where an earlier run was moved; None if there was none.

    Raises:
        OSError: it cannot be made, or there is a file in its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    present = results(folder)
    if not present:
        return None
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    aside = folder / f"earlier-{number}"
    aside.mkdir()
    for path in present:
        path.rename(aside / path.name)
    return aside


def results(folder: Path) -> list[Path]:
    """What a folder holds under the names that a run writes to; empty if it does not exist."""
    names = (
        CONFIG,
        METRICS,
        SUMMARY,
        WEIGHTS,
        MODEL,
        PLOTS,
        CHECKPOINTS,
        FAULTS,
        TRACE,
        REPORT,
        RESPONSES,
        pool_file.POOL,
        pool_file.HELD_OUT,
        pool_file.IMAGES,
    )
    return [folder / name for name in (*names, *TABLES) if (folder / name).exists()]


def manifest(run: Run, command: str) -> dict[str, Any]:
    """What is needed to repeat a run. Every entry is chosen here.

    Of the environment only the options of XLA are read, because they decide what is computed.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        command: what was typed; credentials in it are left out (:func:`redacted`).

    Returns:
        a JSON-serialisable dictionary.
    """
    device = run.mesh.devices.flat[0]
    return {
        "config": to_dict(run.config),
        "command": redacted(command),
        "data_fingerprint": run.task.fingerprint(),
        "policy": run.policy.to_dict(),
        "policy_parameters": run.policy.num_params(),
        "versions": versions(),
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": run.mesh.size,
            "mesh": dict(run.mesh.shape),
            "processes": jax.process_count(),
        },
        "xla_flags": xla_flags(os.environ.get("XLA_FLAGS", "")),
        "git_commit": git_commit(Path(__file__).parent.parent),
    }


def redacted(command: str) -> str:
    """The command without credentials: of addresses, and tokens of the Hugging Face Hub.

    >>> redacted("dpsjax train --model https://user:secret@host/x --out hf_abcdefghij0123456789")
    'dpsjax train --model https://***@host/x --out hf_***'
    """
    command = re.sub(r"(\w://)[^/\s'\"]*@", r"\1***@", command)
    return re.sub(r"\bhf_[A-Za-z0-9]{20,}", "hf_***", command)


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a run computes."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def xla_flags(text: str) -> list[str]:
    """The options of XLA in ``XLA_FLAGS``; anything else in it is left out.

    >>> xla_flags("--xla_cpu_enable_fast_math=false secret")
    ['--xla_cpu_enable_fast_math=false']
    """
    return [word for word in text.split() if word.startswith("--xla_")]


def git_commit(folder: Path) -> str | None:
    """The commit of the work tree that holds ``folder``, with ``-dirty`` if it was changed.

    Args:
        folder: any folder.

    Returns:
        40 hexadecimal digits, or None where there is no git or no work tree.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file that is there complete or not at all.

    Args:
        path: the file.
        values: JSON-serialisable.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            partial.unlink(missing_ok=True)
        raise


def digests(run: Run, state: TrainState) -> dict[str, str]:
    """What proves that two runs ended in the same state; all processes must call this together.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        state: after the last step.

    Returns:
        ``params_digest`` and ``selector_digest``. They do not depend on how arrays are sharded,
        and rows that only fill up the pool are left out.
    """
    belief = real_rows(state.selector, run.stages.axes, len(run.task.train))
    return {"params_digest": digest(state.params), "selector_digest": digest(belief)}


def beliefs(run: Run, state: TrainState) -> np.ndarray:
    """What is believed of every prompt; all processes must call this together.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        state: after the last step.

    Returns:
        chances that none, some or all rollouts of the next visit pass, float[3, N].
    """
    with jax.set_mesh(run.mesh):
        return on_host(run.inspect(state.selector).outcome)[:, : len(run.task.train)]


def begin_trace(run: Run) -> None:
    """Write ``trace.jsonl`` up to where ``metrics.jsonl`` goes; the first process calls this.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
    """
    folder = run.config.folder()
    done = metrics.read_records(folder / METRICS) if (folder / METRICS).exists() else []
    trace_file.begin_trace(folder / TRACE, len(run.task.train), done)


def begin_responses(run: Run, after: int) -> None:
    """Write ``responses.jsonl`` up to a step that is done; the first process calls this.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        after: number of the step, 0 for a run that begins.
    """
    response_file.begin_responses(run.config.folder() / RESPONSES, after)


def write_pool(run: Run) -> None:
    """Write the prompts and the held-out problems in words; the first process calls this.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
    """
    folder = run.config.folder()
    pool_file.write_pool(folder, run.task.train)
    pool_file.write_pool(folder, run.held_out, pool_file.HELD_OUT)


def write_pictures(
    run: Run,
    title: str,
    records: Sequence[Record],
    summary: dict[str, Any],
    belief: np.ndarray,
) -> None:
    """Write all that people look at: plots, the table of prompts, and the report.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        title: of the run.
        records: of all steps.
        summary: of :func:`summarize`.
        belief: of :func:`beliefs`.
    """
    folder, pool = run.config.folder(), run.task.train
    plots.write_plots(folder / PLOTS, records, title, len(pool))
    visits = prompt_table.histories(records, len(pool))
    table = prompt_table.prompt_table(pool, visits, belief)
    prompt_table.write_table(folder, table)
    named = report.named_prompts(table)
    plots.write_prompt_picture(folder / PLOTS / "prompts.png", title, named, visits, len(records))
    picture = f"{PLOTS}/prompts.png"
    report.write_report(folder / REPORT, title, summary, pool, table, visits, picture)


def summarize(
    run: Run, proof: dict[str, str], records: Sequence[Record], seconds: float
) -> dict[str, Any]:
    """The run in a few numbers.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        proof: of :func:`digests`.
        records: of all steps.
        seconds: wall time of the whole run, compilation and evaluation included.

    Returns:
        a JSON-serialisable dictionary. Ratios and rewards are means over the steps.
    """
    pool, first, last = len(run.task.train), records[0], records[-1]
    last_quarter = records[-max(len(records) // 4, 1) :]

    def mean(name: str, of: Sequence[Record] = records) -> float:
        return float(np.mean([record[name] for record in of]))

    return {
        "task": run.task.name,
        "selector": run.config.selector.name,
        "seed": run.config.seed,
        "steps": last["step"],
        "rollouts": last["rollouts"],
        "effective_ratio": mean("effective_ratio"),
        "effective_ratio_last_quarter": mean("effective_ratio", last_quarter),
        "accuracy_before": first["held_out_before_accuracy"],
        "accuracy_after": last["held_out_accuracy"],
        "greedy_before": first["held_out_before_greedy"],
        "greedy_after": last["held_out_greedy"],
        "accuracy_before_by_temperature": {
            "0": first["held_out_before_greedy"],
            **first["held_out_before_by_temperature"],
            f"{run.config.evaluation.temperature:g}": first["held_out_before_accuracy"],
        },
        "accuracy_before_by_source": first["held_out_before_by_source"],
        "accuracy_after_by_source": last["held_out_by_source"],
        "coverage": last["coverage"],
        "pool": pool,
        "truncated": sum(record["truncated"] for record in records),
        "skipped_nonfinite": sum(record["skipped_nonfinite"] for record in records),
        "skipped_empty": sum(record["skipped_empty"] for record in records),
        "seconds": round(seconds, 1),
        "seconds_per_step": float(np.median([r["seconds"]["step"] for r in records])),
        "peak_memory_mib": peak_memory_mib(),
        **proof,
    }


def real_rows(tree: PyTree, axes: PyTree, num_prompts: int) -> PyTree:
    """A selector's state without the rows that only fill up the pool.

    Args:
        tree: arrays.
        axes: the prompt axis of each (:func:`prompt_axes`).
        num_prompts: real ones, which come first.

    Returns:
        NumPy arrays.
    """

    def one(leaf: Array, axis: int) -> np.ndarray:
        values = on_host(leaf)
        return values if axis == SHARED else values[(slice(None),) * axis + (slice(num_prompts),)]

    return jax.tree.map(one, tree, axes)


def peak_memory_mib() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
