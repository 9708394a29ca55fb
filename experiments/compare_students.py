"""Every selector on every simulated student, at equal rollouts: which findings hold across them?

    python experiments/compare_students.py --seeds 10 --out runs/students

Writes a comparison for each student, and over all of them ``students.md`` (paired differences in
held-out ability), ``students.png`` (the gap to the oracle that is closed) and ``ranks.json``. A
student whose comparison is there already is not compared again; remove its folder for that.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from dpsjax.lab.compare import ORACLE, SIGNIFICANT, compare_students
from dpsjax.lab.contenders import contender, named
from dpsjax.lab.report import finding, table, write
from dpsjax.lab.simulate import Setting
from dpsjax.lab.students import STUDENTS

MEASURE = "ability_held_out"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Every selector on every student."""

    students: tuple[str, ...] = tuple(STUDENTS)
    """Which students."""
    selectors: tuple[str, ...] = tuple(named())
    """Which selectors, also with settings (dps:decay=0.7), besides uniform and the oracle."""
    reference: str = "dps"
    """Whom the others are compared with."""
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


def compared(arguments: Arguments, console: Console) -> dict[str, dict]:
    """The comparison of each student, as it is written to its file."""
    setting = Setting(arguments.pool, arguments.batch, 8, arguments.steps)
    paths = {name: arguments.out / name / "comparison.json" for name in arguments.students}
    missing = [name for name, path in paths.items() if not path.exists()]
    every = {}
    if missing:
        every = compare_students(
            {name: contender(name, setting.rollouts) for name in arguments.selectors},
            {name: STUDENTS[name]() for name in missing},
            setting,
            arguments.seeds,
            arguments.reference,
            lambda name, seconds: console.print(f"{name}: {seconds:.0f} s", highlight=False),
        )
    for name, comparison in every.items():
        write(comparison, arguments.out / name)
        console.print(table(comparison))
        console.print(finding(comparison), highlight=False, soft_wrap=True)
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def mean(found: dict, selector: str, measure: str = MEASURE) -> float:
    """The mean of a measure over seeds."""
    return found["selectors"][selector]["measures"][measure]["mean"]


def ranks(found: dict) -> dict[str, int]:
    """Places by held-out ability; the oracle is no contender."""
    names = [name for name in found["selectors"] if name != ORACLE]
    order = sorted(names, key=lambda name: -mean(found, name))
    return {name: place for place, name in enumerate(order, start=1)}


def cell(difference: dict) -> str:
    """A difference in hundredths, bold if significant after the correction."""
    text = f"{100 * difference['mean']:+.2f}"
    return f"**{text}**" if difference["p_corrected"] < SIGNIFICANT else text


def markdown(every: dict[str, dict], order: list[str], average: dict[str, float]) -> str:
    """The table of all students; the rows in order of mean rank."""
    reference = next(iter(every.values()))["reference"]
    lines = ["| selector | mean rank | " + " | ".join(every) + " |"]
    lines.append("|---|---:|" + "---:|" * len(every))
    for name in order:
        cells = [
            f"{mean(found, name):.3f}"
            if name == reference
            else cell(found["differences"][MEASURE][name])
            for found in every.values()
        ]
        lines.append(f"| {name} | {average[name]:.1f} | " + " | ".join(cells) + " |")
    ends = [f"{mean(found, ORACLE) - mean(found, reference):+.3f}" for found in every.values()]
    return "\n".join([*lines, f"| {ORACLE} | | " + " | ".join(ends) + " |"]) + "\n"


def short(found: dict) -> dict:
    """What is worth keeping of a comparison: means of some measures, and the differences."""
    kept = (MEASURE, "effective_ratio", "coverage", "brier", "accuracy")
    means = {
        name: {m: mean(found, name, m) and round(mean(found, name, m), 4) for m in kept}
        for name in found["selectors"]
    }
    differences = {
        name: {part: round(value, 6) for part, value in difference.items()}
        for name, difference in found["differences"][MEASURE].items()
    }
    return {"means": means, "differences": differences}


def draw(path: Path, every: dict[str, dict], order: list[str]) -> None:
    """A heat map of the share of the gap between uniform and the oracle that is closed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shares = np.array([[mean(f, name, "gap_held_out") for f in every.values()] for name in order])
    size = (1.6 + 0.62 * len(every), 1.3 + 0.2 * len(order))
    figure, axes = plt.subplots(figsize=size, dpi=200, layout="constrained")
    image = axes.imshow(shares, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if abs(share) > 0.65 else "black"
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=6, color=color)
    axes.set_xticks(range(len(every)), list(every), rotation=35, ha="right", fontsize=7)
    axes.set_yticks(range(len(order)), order, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, extend="both")
    bar.set_label("share of the gap uniform to oracle closed", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    figure.savefig(path)


def main(arguments: Arguments) -> None:
    console = Console()
    every = compared(arguments, console)
    places = {name: ranks(found) for name, found in every.items()}
    names = next(iter(places.values()))
    average = {name: float(np.mean([rank[name] for rank in places.values()])) for name in names}
    order = sorted(average, key=average.__getitem__)
    text = markdown(every, order, average)
    console.print(text, highlight=False, soft_wrap=True)
    (arguments.out / "students.md").write_text(text, encoding="utf-8")
    draw(arguments.out / "students.png", every, order)
    record = {
        "setting": next(iter(every.values()))["setting"] | {"seeds": arguments.seeds},
        "reference": arguments.reference,
        "mean_rank": average,
        "ranks": places,
        "students": {name: short(found) for name, found in every.items()},
    }
    (arguments.out / "ranks.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
