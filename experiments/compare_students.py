"""Every selector on every simulated student, at equal rollouts: which ranks hold across students?

    python experiments/compare_students.py --seeds 10 --out runs/students

Writes a comparison for each student, and ranks.json: each selector's rank by held-out ability on
each student, and its mean rank.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from dpsjax.lab.command import CompareArguments, run
from dpsjax.lab.compare import ORACLE, means
from dpsjax.lab.contenders import STUDENTS


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Every selector on every student."""

    students: tuple[str, ...] = tuple(STUDENTS)
    """Which students."""
    selectors: tuple[str, ...] = ("dps", "dps-cool", "mopps", "beta-mean", "beta-cool", "mapp-top")
    """Which selectors, besides uniform and the oracle."""
    seeds: int = 10
    """Runs of each."""
    steps: int = 150
    """Steps of a run."""
    pool: int = 8000
    """Prompts to choose from."""
    batch: int = 256
    """Prompts in a step."""
    out: Path = Path("runs/students")
    """Folder of the results."""


def main(arguments: Arguments) -> None:
    console, ranks = Console(), {}
    for name in arguments.students:
        options = CompareArguments(
            student=name,
            selectors=arguments.selectors,
            seeds=arguments.seeds,
            steps=arguments.steps,
            pool=arguments.pool,
            batch=arguments.batch,
            out=arguments.out / name,
        )
        average = means(run(options, console), "ability_held_out")
        order = sorted((n for n in average if n != ORACLE), key=lambda n: -average[n].mean)
        ranks[name] = {selector: place for place, selector in enumerate(order, start=1)}
    names = next(iter(ranks.values()))
    mean = {s: float(np.mean([rank[s] for rank in ranks.values()])) for s in names}
    for selector in sorted(mean, key=mean.__getitem__):
        places = " ".join(f"{rank[selector]:3d}" for rank in ranks.values())
        console.print(f"{selector:20s} {mean[selector]:5.1f}   {places}", highlight=False)
    path = arguments.out / "ranks.json"
    path.write_text(json.dumps({"ranks": ranks, "mean_rank": mean}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
