"""Claim: what each selector reaches on Countdown at equal rollouts, over several seeds.

    python experiments/countdown_seeds.py --selectors dps uniform --seeds 0 1 2 3 4

Runs the main job once for each selector and seed (a run that is there already is kept), then prints
the means with 95 % intervals and the paired differences against the last selector named. The seed
decides everything: the problems, the policy's samples, the selections.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from dpsjax.lab.statistics import against, interval

MEASURES = ("accuracy_before", "accuracy_after", "gain", "effective_ratio", "coverage", "seconds")


@dataclass
class Options:
    """Which runs, and where they are kept."""

    selectors: list[str] = field(default_factory=lambda: ["dps", "uniform"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    steps: int | None = None
    """Steps of each run; the main job's default if not given."""
    out: Path = Path("runs/countdown_seeds")


def run(options: Options, selector: str, seed: int) -> dict:
    """The summary of one run, made now unless it is there."""
    folder = options.out / f"{selector}-{seed}"
    command = [sys.executable, "-m", "dpsjax.cli", "train", "countdown"]
    command += ["--selector", selector, "--seed", str(seed), "--out", str(folder)]
    if options.steps is not None:
        command += ["--steps", str(options.steps)]
    if not (folder / "summary.json").exists():
        print(" ".join(command[2:]), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((folder / "summary.json").read_text())
    summary["gain"] = summary["accuracy_after"] - summary["accuracy_before"]
    return summary


def main(options: Options) -> None:
    found = {
        selector: [run(options, selector, seed) for seed in options.seeds]
        for selector in options.selectors
    }
    values = {
        measure: {name: np.array([s[measure] for s in rows]) for name, rows in found.items()}
        for measure in MEASURES
    }
    table = Table("selector", *MEASURES, title=f"{len(options.seeds)} seeds, mean [95 % interval]")
    record: dict = {"seeds": options.seeds, "means": {}, "against": {}}
    for name in options.selectors:
        cells = {measure: interval(values[measure][name]) for measure in MEASURES}
        record["means"][name] = {measure: list(cell[:3]) for measure, cell in cells.items()}
        table.add_row(name, *(f"{c[0]:.3f} [{c[1]:.3f}, {c[2]:.3f}]" for c in cells.values()))
    Console().print(table)
    if len(options.selectors) > 1:
        for measure in ("gain", "effective_ratio"):
            for name, d in against(values[measure], options.selectors[-1]).items():
                record["against"][f"{name}: {measure}"] = list(d)
                print(
                    f"{name} - {options.selectors[-1]}, {measure}: {d[0]:+.3f} "
                    f"[{d[1]:+.3f}, {d[2]:+.3f}], Holm p = {d[4]:.3f}"
                )
    (options.out / "table.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
