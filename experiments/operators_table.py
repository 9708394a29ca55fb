"""Which prompts to choose, on a real policy whose pass rates are known exactly: the table.

    nice -n 10 python experiments/operators_table.py                    # 10 seeds, about an hour
    python experiments/operators_table.py --smoke                       # a minute
    python experiments/operators_table.py --map                         # other settings, 3 seeds

Every run of GRPO on operator chains (docs/operators.md) is one compiled program. One line of JSON
for each finished run goes to ``--out``; the same command goes on where it stopped. At the end, or
with ``--report`` at any time, the table is printed and written beside it: accuracy is exact, and
differences are paired by seed, with Holm's correction over all selectors.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from dpsjax import chain, selectors
from dpsjax.grpo import GRPOConfig
from dpsjax.lab.contenders import Contender, contender
from dpsjax.lab.finetune import PolicySetting
from dpsjax.lab.looks import PolicyRun
from dpsjax.lab.policies import policy_student
from dpsjax.lab.statistics import against, interval
from dpsjax.lab.stepwise import share, stepwise
from dpsjax.tasks.operators import base_path, operator_chains

ORACLES = {"oracle": None, "oracle-proportional": 1.0, "oracle-proportional-4": 4.0}
FIELD = (
    "uniform",
    "uniform-epochs",
    "history-resampling",
    "dynamic-sampling",
    "mopps",
    "dps",
    "dps-cool",
    "dps-binomial",
    "arcus",
    "kgps",
)
BASELINE, FLOOR, CEILING = "uniform-epochs", "uniform", "dynamic-sampling"


@dataclasses.dataclass(frozen=True)
class Place:
    """One setting of the map."""

    name: str = "default"
    problems: int = 2000
    batch: int = 32
    steps: int = 200
    learning_rate: float = 5e-4
    tables: int = 0
    data_seed: int = 0


# Passes over the pool, batch and learning rate around the default; equal rollouts where only the
# batch changes.
MAP = (
    Place(),
    Place("half a pass", problems=12_800),
    Place("12.8 passes", problems=500),
    Place("batch 64", batch=64, steps=100),
    Place("batch 16", batch=16, steps=400),
    Place("learning rate 2e-4", learning_rate=2e-4),
    Place("learning rate 1e-3", learning_rate=1e-3),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    out: Path = Path("runs/operators/table.jsonl")
    """A line of JSON for each finished run."""
    selectors: tuple[str, ...] = FIELD
    """Names of the catalogue and its variants, and the oracles: oracle, oracle-proportional,
    oracle-proportional-4."""
    seeds: int = 10
    """Runs of each selector."""
    first_seed: int = 0
    """Seeds are those from this one on."""
    every: int = 20
    """Steps between looks."""
    base: Path = base_path()  # noqa: RUF009
    """Weights of the base policy, made for the tables."""
    tables: int = 0
    """Seed of what the operators do; the base must know them."""
    map: bool = False
    """Run the settings of the map, not the default alone."""
    report: bool = False
    """Only print what there is."""
    smoke: bool = False
    """A few steps of two selectors, to see that it works."""


def named(name: str) -> Contender:
    """An oracle, or a contender of the catalogue."""
    if name not in ORACLES:
        return contender(name)
    power = ORACLES[name]
    part = selectors.uniform() if power is None else chain(selectors.draw_proportional(power))
    return Contender(part, oracle=True)


def line(run: PolicyRun, every: int) -> dict:
    """What is kept of a run: exact accuracies at the looks, and sums over the steps."""
    steps, looks = run.steps, run.looks
    spent = np.concatenate([[0], np.cumsum(steps.rollouts)])[::every]
    blocks = (-1, every)
    sums = looks.calibration
    judged = np.maximum(sums.prompts, 1)
    base_rate = np.sum(sums.bins[:, 2], axis=1) / judged
    return {
        "held_out": np.round(looks.held_out.astype(float), 5).tolist(),
        "greedy": np.round(looks.greedy.astype(float), 5).tolist(),
        "pool": np.round(looks.pool.astype(float), 5).tolist(),
        "mixed": np.round(looks.mixed.astype(float), 5).tolist(),
        "rollouts": spent.tolist(),
        "effective": steps.effective.reshape(blocks).sum(1).tolist(),
        "groups": steps.groups.reshape(blocks).sum(1).tolist(),
        "trained": steps.trained.reshape(blocks).sum(1).tolist(),
        "effective_ratio": float(steps.effective.sum() / steps.groups.sum()),
        "repeats": float(steps.repeats.sum() / steps.groups.sum()),
        "coverage": int((run.visits > 0).sum()),
        "most_visits": int(run.visits.max()),
        "brier": np.round((sums.brier / judged).astype(float), 5).tolist(),
        "brier_of_base_rate": np.round((base_rate * (1 - base_rate)).astype(float), 5).tolist(),
        "judged": bool(sums.prompts[0] > 0),
    }


def queue(config: Config) -> Iterator[tuple[Place, int, str]]:
    """Every run, seed by seed, so that what is finished can be compared at any time."""
    places = MAP if config.map else (Place(tables=config.tables),)
    for place in places:
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            for name in config.selectors:
                yield place, seed, name


def identity(place: Place, seed: int, name: str) -> tuple:
    return place.name, place.tables, seed, name


def finished(path: Path) -> dict[tuple, dict]:
    """Lines by what they are of; one that was cut off is done again."""
    found: dict[tuple, dict] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                continue
            place = Place(**row["place"])
            found[identity(place, row["seed"], row["selector"])] = row
    return found


def programs(config: Config) -> Callable[[Place, str], Callable[[int], PolicyRun]]:
    """Compiled programs, one for each place and selector; those of the last place are kept."""
    kept: dict[tuple, Callable[[int], PolicyRun]] = {}
    common: dict[Place, tuple] = {}

    def program(place: Place, name: str) -> Callable[[int], PolicyRun]:
        if place not in common:
            kept.clear()
            common.clear()
            task = operator_chains(place.problems, 1000, place.data_seed, tables=place.tables)
            student = policy_student(task, config.base)
            setting = PolicySetting(
                steps=place.steps,
                batch=place.batch,
                every=config.every * place.steps // 200 or 1,
                grpo=GRPOConfig(learning_rate=place.learning_rate),
            )
            common[place] = student, setting, share(student, setting)
        if (place, name) not in kept:
            kept[place, name] = stepwise(named(name), *common[place])
        return kept[place, name]

    return program


def work(config: Config, console: Console) -> None:
    """Do what is not done."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    done, program = finished(config.out), programs(config)
    todo = [item for item in queue(config) if identity(*item) not in done]
    started = time.monotonic()
    for count, (place, seed, name) in enumerate(todo, 1):
        begun = time.monotonic()
        run = program(place, name)(seed)
        seconds = time.monotonic() - begun
        row = {
            "selector": name,
            "seed": seed,
            "place": dataclasses.asdict(place),
            "seconds": round(seconds, 2),
            **line(run, config.every * place.steps // 200 or 1),
        }
        with config.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        left = (time.monotonic() - started) / count * (len(todo) - count)
        console.print(
            f"{count}/{len(todo)} {place.name} seed {seed} {name}: held-out "
            f"{row['held_out'][-1]:.3f}, effective {row['effective_ratio']:.2f}, "
            f"{row['rollouts'][-1]:,} rollouts in {seconds:.0f} s; ETA {left / 60:.0f} min",
            highlight=False,
        )


def rollouts_to(row: dict, accuracy: float) -> float:
    """Rollouts until the held-out accuracy was first reached, between two looks by a line."""
    held, spent = np.array(row["held_out"]), np.array(row["rollouts"], float)
    above = np.flatnonzero(held >= accuracy)
    if above.size == 0:
        return float("nan")
    place = int(above[0])
    if place == 0:
        return 0.0
    share = (accuracy - held[place - 1]) / (held[place] - held[place - 1])
    return float(spent[place - 1] + share * (spent[place] - spent[place - 1]))


def summarize(rows: list[dict]) -> dict:
    """Means, intervals and paired differences of the selectors that have the same seeds."""
    by_name: dict[str, dict[int, dict]] = {}
    for row in rows:
        by_name.setdefault(row["selector"], {})[row["seed"]] = row
    if BASELINE not in by_name:
        return {}
    out = {}
    for name, runs in by_name.items():
        seeds = sorted(set(runs) & set(by_name[BASELINE]))
        mine = [runs[seed] for seed in seeds]
        final = np.array([row["held_out"][-1] for row in mine])
        base = np.array([by_name[BASELINE][seed]["held_out"][-1] for seed in seeds])
        out[name] = {
            "seeds": seeds,
            "held_out": interval(final)._asdict(),
            "final_by_seed": final.tolist(),
            "greedy": interval([row["greedy"][-1] for row in mine])._asdict(),
            "less_baseline": interval(final - base)._asdict(),
            "effective_ratio": float(np.mean([row["effective_ratio"] for row in mine])),
            "coverage": float(np.mean([row["coverage"] for row in mine])),
            "repeats": float(np.mean([row["repeats"] for row in mine])),
            "rollouts": float(np.mean([row["rollouts"][-1] for row in mine])),
            "seconds": float(np.median([row["seconds"] for row in mine])),
            "brier_skill": _skill(mine),
        }
        for target in (BASELINE, CEILING):
            if target in by_name:
                shared = [seed for seed in seeds if seed in by_name[target]]
                goals = [by_name[target][seed]["held_out"][-1] for seed in shared]
                found = [rollouts_to(runs[s], goal) for s, goal in zip(shared, goals, strict=True)]
                reached = [value for value in found if not np.isnan(value)]
                out[name][f"rollouts_to_{target}"] = float(np.mean(reached)) if reached else None
                out[name][f"reached_{target}"] = f"{len(reached)} of {len(found)}"
    _add_tests(out)
    return out


def _skill(rows: list[dict]) -> float | None:
    """Of the believed chance to be mixed, over the pool and the looks after the first."""
    if not rows or not rows[0]["judged"]:
        return None
    brier = np.mean([row["brier"][1:] for row in rows])
    return float(1 - brier / np.mean([row["brier_of_base_rate"][1:] for row in rows]))


def _add_tests(out: dict) -> None:
    """Paired t-tests against the baseline, corrected over all selectors with all of its seeds."""
    most = out[BASELINE]["seeds"]
    values = {n: np.array(v["final_by_seed"]) for n, v in out.items() if v["seeds"] == most}
    if len(values) > 1:
        for name, difference in against(values, BASELINE).items():
            out[name]["test"] = difference._asdict()


def table(title: str, found: dict) -> Table:
    """For people."""
    shown = Table(title=title)
    for heading in (
        "selector",
        "seeds",
        "held-out",
        "greedy",
        f"- {BASELINE}",
        "p (Holm)",
        "effective",
        "prompts",
        "repeats",
        "Brier skill",
        "rollouts",
        f"to {BASELINE}",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, mine in sorted(found.items(), key=lambda item: -item[1]["held_out"]["mean"]):
        held, less = mine["held_out"], mine["less_baseline"]
        test, skill, reach = mine.get("test"), mine["brier_skill"], f"rollouts_to_{BASELINE}"
        shown.add_row(
            name,
            str(len(mine["seeds"])),
            f"{held['mean']:.3f} [{held['low']:.3f}, {held['high']:.3f}]",
            f"{mine['greedy']['mean']:.3f}",
            f"{less['mean']:+.3f} [{less['low']:+.3f}, {less['high']:+.3f}]",
            "-" if test is None else f"{test['p_corrected']:.3g}",
            f"{mine['effective_ratio']:.2f}",
            f"{mine['coverage']:.0f}",
            f"{mine['repeats']:.2f}",
            "-" if skill is None else f"{skill:+.2f}",
            f"{mine['rollouts']:,.0f}",
            "-" if mine.get(reach) is None else f"{mine[reach]:,.0f}",
        )
    return shown


def report(config: Config, console: Console) -> None:
    """Print what there is, and write it beside the lines."""
    rows = list(finished(config.out).values())
    places = {row["place"]["name"]: None for row in rows}
    summary = {}
    for place in places:
        summary[place] = summarize([row for row in rows if row["place"]["name"] == place])
        console.print(table(place, summary[place]))
    path = config.out.with_suffix(".summary.json")
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def main(config: Config) -> None:
    """Run what is missing, then report."""
    console = Console(width=160)
    if config.smoke:
        config = dataclasses.replace(
            config, selectors=("uniform-epochs", "dps"), seeds=2, every=100, map=False
        )
    if not config.report:
        work(config, console)
    report(config, console)


if __name__ == "__main__":
    main(tyro.cli(Config))
