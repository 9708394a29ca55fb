"""Pictures of what ``operators_table.py`` and ``operators_why.py`` found, from their records.

    python experiments/operators_figures.py

Lines are means over seeds, bands and bars 95 % intervals; a picture without its record is left out.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from operators_runs import BASELINE, finished

from dpsjax.lab.statistics import interval
from dpsjax.report.figures import BLUE, GREEN, ORANGE, PINK, RED, SKY, write_figures

SHOWN = {
    "dynamic-sampling": "#222222",
    "oracle:power=4": "#999999",
    "frontier": RED,
    "history-resampling": GREEN,
    BASELINE: BLUE,
    "mopps": ORANGE,
    "arcus": PINK,
    "dps": SKY,
}
Rows = dict[str, dict[str, dict[int, dict]]]  # place, selector, seed


@dataclasses.dataclass(frozen=True)
class Config:
    """What is drawn."""

    results: Path = Path("experiments/results")
    """Folder of the records, and of the pictures."""


def load(path: Path) -> Rows:
    """Runs of a record by place, selector and seed."""
    rows: Rows = {}
    for (place, seed, name), row in finished(path).items():
        rows.setdefault(place.name, {}).setdefault(name, {})[seed] = row
    return rows


def band(axes, x, runs: list, name: str) -> None:
    """The mean of curves, and its interval at every point."""
    parts = [interval(column) for column in np.array(runs).T]
    color = SHOWN[name]
    axes.plot(x, [part.mean for part in parts], color=color, label=name)
    axes.fill_between(
        x, [p.low for p in parts], [p.high for p in parts], color=color, alpha=0.18, linewidth=0
    )


def curves(rows: dict[str, dict[int, dict]], axes, against: str) -> None:
    """Held-out accuracy against rollouts or updates."""
    for name in SHOWN:
        if name in rows:
            runs = list(rows[name].values())
            spent = np.mean([row["rollouts"] for row in runs], axis=0)
            steps = np.linspace(0, runs[0]["place"]["steps"], len(spent))
            x = spent / 1000 if against == "rollouts" else steps
            band(axes, x, [row["held_out"] for row in runs], name)
    axes.set_xlabel("thousand rollouts" if against == "rollouts" else "updates")
    axes.set_ylabel("held-out accuracy, exact")
    if against == "rollouts":
        axes.set_xlim(0, 100)
    axes.legend(fontsize=6, loc="lower right")


def effective(rows: dict[str, dict[int, dict]], axes) -> None:
    """Share of mixed groups over the run."""
    for name in SHOWN:
        if name in rows:
            runs = list(rows[name].values())
            ratio = [np.divide(row["effective"], row["groups"]) for row in runs]
            count = len(ratio[0])
            steps = (np.arange(count) + 0.5) * runs[0]["place"]["steps"] / count
            band(axes, steps, ratio, name)
    axes.set_xlabel("updates")
    axes.set_ylabel("mixed groups")
    axes.legend(fontsize=6, ncol=2)


def gains(rows: Rows, axes, names: tuple[str, ...]) -> None:
    """Paired differences to shuffled epochs, a row for each place and selector."""
    ticks, y = [], 0.0
    for place, found in rows.items():
        if BASELINE not in found:
            continue
        ticks.append((y, place))
        for name in names:
            seeds = sorted(set(found.get(name, {})) & set(found[BASELINE]))
            if len(seeds) > 1:
                less = interval(
                    [
                        found[name][s]["held_out"][-1] - found[BASELINE][s]["held_out"][-1]
                        for s in seeds
                    ]
                )
                error = [[less.mean - less.low], [less.high - less.mean]]
                axes.errorbar(
                    less.mean,
                    y,
                    xerr=error,
                    fmt="o",
                    ms=3,
                    color=SHOWN.get(name, "#999999"),
                    label=name if len(ticks) == 1 else None,
                )
                y -= 0.22
        y -= 0.5
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=7)
    axes.set_xlabel(f"held-out accuracy less that of {BASELINE}")
    axes.legend(fontsize=6)


def main(config: Config) -> None:
    """Draw what there is."""
    drawings: dict[str, tuple[Callable, tuple[float, float]]] = {}
    table = load(config.results / "operators_table.jsonl").get("default", {})
    if table:
        size = (4.8, 3.2)
        drawings["operators_rollouts"] = (lambda axes: curves(table, axes, "rollouts"), size)
        drawings["operators_updates"] = (lambda axes: curves(table, axes, "updates"), size)
        drawings["operators_effective"] = (lambda axes: effective(table, axes), size)
    places = load(config.results / "operators_map.jsonl")
    if places:
        shown = ("oracle:power=1", "frontier", "dps")
        drawings["operators_map"] = (lambda axes: gains(places, axes, shown), (4.8, 4.2))
    for path in write_figures(config.results, "operator chains, 95 % intervals", drawings):
        print(path)


if __name__ == "__main__":
    main(tyro.cli(Config))
