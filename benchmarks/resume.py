"""Kill a training run with SIGKILL again and again, and compare it with the one left alone.

    python benchmarks/resume.py --kills 20 --out benchmarks/results

A child process trains from the shipped base. At a random moment of a random stage (rollouts,
update, saving, sealing, renaming, anywhere) it gets SIGKILL; the same command is started again,
until the run is done. Digests and every line of metrics.jsonl, times aside, must be those of an
uninterrupted run.
"""

import argparse
import dataclasses
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

COMMAND = shlex.split(
    "--prompts 4 --grpo.rollouts-per-prompt 4 --task.problems 64 --task.held-out 16 "
    "--evaluation.problems 8 --evaluation.every 3 --mesh.data 1 --checkpoint.every 2 "
    "--checkpoint.keep 2 --grpo.learning-rate 1e-3"
)
# Where to kill: stage, and the longest delay in seconds after it begins.
STAGES = {
    "select": 0.002,
    "generate": 0.2,
    "update": 0.3,
    "save": 0.15,  # begins when the arrays are copied: what follows is written in the background
    "seal": 0.01,  # begins before the checksums are written
    "rename": 0.004,  # begins after them: what follows is the rename
    "anywhere": 1.0,
}


def kill_soon(delay: float) -> None:
    """SIGKILL to this process, from a thread, so that the stage goes on meanwhile."""

    def act() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=act, daemon=True).start()


def after(real, call: int, delay: float, before: bool = True):
    """``real``, with a kill about to come in its ``call``-th use."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if before and len(calls) == call:
            kill_soon(delay)
        result = real(*arguments, **options)
        if not before and len(calls) == call:
            kill_soon(delay)
        return result

    return wrapped


def worker(words: list[str], stage: str, call: int, delay: float) -> None:
    """``dpsjax train countdown`` with a kill in it."""
    from rich.console import Console

    from dpsjax import cli
    from dpsjax.run import checkpoint, run

    config = cli.parse_train(words).config
    started = run.start(config, " ".join(words), print)
    if started.finished:
        return
    if stage in ("select", "generate", "update"):
        stages = started.run.stages
        stages = stages._replace(**{stage: after(getattr(stages, stage), call, delay)})
        started = started._replace(run=dataclasses.replace(started.run, stages=stages))
    elif stage == "anywhere":
        kill_soon(delay * call)
    elif stage == "save":
        checkpoint.Saver.save = after(checkpoint.Saver.save, call, delay, before=False)
    elif stage in ("seal", "rename"):
        before = stage == "seal"
        checkpoint.write_seal = after(checkpoint.write_seal, call, delay, before=before)
    run.finish(started, Console())


def launch(out: Path, steps: int, stage: str, call: int, delay: float) -> int:
    """Run the worker: its return code."""
    words = [sys.executable, __file__, "--worker", stage, str(call), str(delay)]
    words += ["--steps", str(steps), "--folder", str(out)]
    with (out.parent / f"{out.name}.log").open("a", encoding="utf-8") as log:
        return subprocess.run(words, stdout=log, stderr=subprocess.STDOUT).returncode


def timeless(out: Path) -> list[dict]:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def compare(out: Path, whole: Path) -> dict:
    """What a killed run shares with the whole one."""
    one, two = (
        json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in (out, whole)
    )
    lines, expected = timeless(out), timeless(whole)
    return {
        "params_equal": one["params_digest"] == two["params_digest"],
        "selector_equal": one["selector_digest"] == two["selector_digest"],
        "lines": len(lines),
        "lines_equal": lines == expected,
        "steps_in_order": [line["step"] for line in lines] == list(range(1, len(expected) + 1)),
    }


def measure(kills: int, steps: int, seed: int, folder: Path) -> dict:
    """Kill ``kills`` times, over as many runs as that takes."""
    draw = random.Random(seed)
    whole, begun = folder / "whole", time.perf_counter()
    whole.mkdir()
    if launch(whole, steps, "none", 0, 0.0) != 0:
        raise RuntimeError((folder / "whole.log").read_text(encoding="utf-8"))
    seconds = time.perf_counter() - begun
    planned = [stage for _ in range(kills) for stage in STAGES][:kills]
    draw.shuffle(planned)
    done, runs = {stage: 0 for stage in STAGES}, []
    while planned:
        out = folder / f"killed-{len(runs)}"
        out.mkdir()
        died = 0
        while True:
            stage = planned[-1] if planned else "none"
            # Late enough to leave a checkpoint behind now and then, so that runs get on.
            call = draw.randint(1, 3 if stage in ("save", "seal", "rename") else 7)
            delay = draw.uniform(0, STAGES.get(stage, 0.0))
            code = launch(out, steps, stage, call, delay)
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise RuntimeError((folder / f"{out.name}.log").read_text(encoding="utf-8")[-5000:])
            died += 1
            done[planned.pop()] += 1
        runs.append({"kills": died, **compare(out, whole)})
        print(json.dumps(runs[-1]), flush=True)
    return {
        "kills": sum(run["kills"] for run in runs),
        "kills_by_stage": done,
        "steps": steps,
        "runs": runs,
        "identical": all(
            run["params_equal"] and run["selector_equal"] and run["lines_equal"] for run in runs
        ),
        "seconds_uninterrupted": round(seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="folder for resume.json")
    parser.add_argument("--worker", nargs=3, metavar=("STAGE", "CALL", "DELAY"))
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.worker:
        stage, call, delay = arguments.worker
        words = [*COMMAND, "--steps", str(arguments.steps), "--out", str(arguments.folder)]
        worker(words, stage, int(call), float(delay))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        record = measure(arguments.kills, arguments.steps, arguments.seed, Path(folder))
    print(json.dumps(record))
    if arguments.out is not None:
        from common import save

        save("resume", record, arguments.out)
    return 0 if record["identical"] and record["kills"] >= arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
