"""Thousands of steps of a tiny run: memory, compilations, file handles, threads and processes.

    python benchmarks/soak.py --steps 2000 --seconds 300 --out benchmarks/results

Checkpoints are written throughout. The slope of the resident size is a least-squares fit over the
second half of the samples, when caches and pools are filled.
"""

import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from common import peak_bytes, resident_bytes, save
from rich.console import Console

from dpsjax import cli
from dpsjax.run import run as runs

COMMAND = (
    "--init random --prompts 4 --model.width 32 --model.mlp-width 64 --model.layers 1 "
    "--model.heads 4 --model.head-dim 8 --task.problems 64 --task.held-out 8 --task.sizes 2 "
    "--task.weights 1 --task.response-tokens 8 --grpo.rollouts-per-prompt 4 "
    "--evaluation.problems 8 --evaluation.every 50 --mesh.data 1 --checkpoint.every 25"
)


@dataclass
class Options:
    """How long, and where the record goes."""

    steps: int = 2000
    seconds: float = 300.0
    every: int = 25
    out: Path | None = None


def sample(run: runs.Run) -> dict:
    """What might grow."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    programs = run.stages
    stages = (programs.select, programs.generate, programs.offer, programs.take, programs.update)
    return {
        "resident": resident_bytes(),
        "compilations": sum(stage._cache_size() for stage in stages),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "processes": len(children),
        "live_arrays": len(jax.live_arrays()),
    }


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = [*COMMAND.split(), "--steps", str(options.steps), "--out", folder]
        started = runs.start(cli.parse_train(words).config, "soak", print)
        samples: list[dict] = []
        begun, real = time.monotonic(), runs.train

        def watched(*arguments):
            for result in real(*arguments):
                step = result[1]["step"]
                if step % options.every == 0:
                    samples.append({"step": step, **sample(started.run)})
                yield result
                if time.monotonic() - begun > options.seconds:
                    return

        runs.train = watched
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            try:
                runs.finish(started, Console(file=nowhere, force_terminal=True))
            finally:
                runs.train = real
        seconds = time.monotonic() - begun
    half = samples[len(samples) // 2 :]
    step = np.array([s["step"] for s in half], float)
    slope = float(np.polyfit(step, [s["resident"] for s in half], 1)[0])
    ends = ("compilations", "handles", "threads", "processes", "live_arrays")
    record = {
        "steps": samples[-1]["step"],
        "seconds": round(seconds, 1),
        "resident_mib_first": round(samples[0]["resident"] / 2**20, 1),
        "resident_mib_half": round(half[0]["resident"] / 2**20, 1),
        "resident_mib_last": round(samples[-1]["resident"] / 2**20, 1),
        "peak_mib": round(peak_bytes() / 2**20, 1),
        "bytes_per_step_second_half": round(slope),
        **{name: [samples[0][name], half[0][name], samples[-1][name]] for name in ends},
    }
    print(json.dumps(record))
    if options.out is not None:
        save("soak", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
