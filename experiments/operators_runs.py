"""Runs of GRPO on operator chains: what the scripts ``operators_*.py`` have in common.

Every run is on a real policy whose pass rates are known exactly (docs/operators.md). One line of
JSON for each finished run goes to a file; what is there is not done again. Tables compare the runs
of one place, paired by seed, with Holm's correction over all selectors.
"""

import ast
import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from dpsjax import chain, selectors
from dpsjax.grpo import GRPOConfig, LossConfig
from dpsjax.lab.contenders import Contender, contender
from dpsjax.lab.finetune import PolicySetting
from dpsjax.lab.looks import PolicyRun
from dpsjax.lab.policies import PolicyStudent, policy_student
from dpsjax.lab.statistics import against, interval
from dpsjax.lab.stepwise import share, stepwise
from dpsjax.tasks.operators import LEARNING_RATE, base_path, operator_chains
from dpsjax.types import PyTree

BASES = Path("runs/operators_bases")  # policies that do not ship
BASELINE, CEILING = "uniform-epochs", "dynamic-sampling"


@dataclasses.dataclass(frozen=True)
class Place:
    """A setting in which selectors are compared."""

    name: str = "default"
    problems: int = 2000
    batch: int = 32
    steps: int = 200
    learning_rate: float = LEARNING_RATE
    tables: int = 0
    data_seed: int = 0
    base: str = ""
    """Name of a base policy in ``BASES``; the one that ships if not given."""
    count_uninformative: bool = False
    group: int = 8
    advantages: Literal["group-normalized", "centered"] = "group-normalized"
    oracle_every: int = 1
    """Steps for which an oracle's knowledge stays what it was."""

    def setting(self, name: str) -> "Place":
        """What decides a run of a selector: not what the place is called."""
        every = self.oracle_every if name.startswith("oracle") else 1
        return dataclasses.replace(self, name="", oracle_every=every)


def made(base: str) -> Path:
    """Where the weights of a base are."""
    return BASES / f"{base}.safetensors"


def named(name: str, group: int = 8) -> Contender:
    """A contender by its name, with keywords: ``dps:cool_down=12``, ``mopps``, ``oracle:power=4``.

    An oracle draws by the true chance to be mixed: the best ones, or in proportion to a power, and
    if ``weighted`` each prompt counts in the loss by the inverse of what it was drawn for.
    """
    kind, _, text = name.partition(":")
    if kind == "oracle":
        pairs = (pair.split("=") for pair in text.split(",") if pair)
        return Contender(
            _oracle(**{key: ast.literal_eval(value) for key, value in pairs}), oracle=True
        )
    return contender(name, group)


def _oracle(power: float | None = None, weighted: bool = False) -> selectors.Selector:
    if power is None:
        return chain()
    parts = [selectors.draw_proportional(float(power))]
    if weighted:

        def weigh(key, proposal: selectors.Proposal) -> selectors.Proposal:
            inverse = jnp.maximum(proposal.score, 1e-3) ** -float(power)
            return proposal.weigh(inverse / inverse.mean())

        parts.insert(0, selectors.stateless(weigh))
    return chain(*parts)


def after(student: PolicyStudent, steps: int) -> PyTree:
    """Parameters of the policy after so many steps of shuffled epochs with seed 0."""
    if steps == 0:
        return student.params
    setting = PolicySetting(steps, every=steps, grpo=GRPOConfig(learning_rate=LEARNING_RATE))
    run = stepwise(named(BASELINE), student, setting, share(student, setting))
    return jax.tree.map(jnp.asarray, run(0).params)


def write_record(out: Path, settings: dict, rows: list[dict]) -> None:
    """Figures and the settings that made them, as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"config": {**settings, "out": str(out)}, "rows": rows}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


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


Item = tuple[Place, int, str]  # a run: where, its seed, and the selector's name


def finished(path: Path) -> dict[Item, dict]:
    """Lines by what they are of; one that was cut off is done again."""
    found: dict[Item, dict] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[Place(**row["place"]), row["seed"], row["selector"]] = row
    return found


def programs() -> Callable[[Place, str, int], Callable[[int], PolicyRun]]:
    """Compiled programs, one for each place and selector; those of the last place are kept."""
    kept: dict[tuple, Callable[[int], PolicyRun]] = {}
    common: dict[Place, tuple] = {}

    def program(place: Place, name: str, every: int) -> Callable[[int], PolicyRun]:
        shown = dataclasses.replace(place, name="", oracle_every=1)
        if shown not in common:
            kept.clear()
            common.clear()
            task = operator_chains(place.problems, 1000, place.data_seed, tables=place.tables)
            student = policy_student(task, made(place.base) if place.base else base_path())
            loss = LossConfig(
                count_uninformative=place.count_uninformative, advantages=place.advantages
            )
            setting = PolicySetting(
                steps=place.steps,
                batch=place.batch,
                every=every,
                grpo=GRPOConfig(
                    rollouts_per_prompt=place.group, learning_rate=place.learning_rate, loss=loss
                ),
            )
            common[shown] = student, setting, share(student, setting)
        if (place, name) not in kept:
            contender = named(name, place.group)
            kept[place, name] = stepwise(contender, *common[shown], oracle_every=place.oracle_every)
        return kept[place, name]

    return program


def borrow(items: list[Item], out: Path, known: Path) -> None:
    """Copy to ``out`` the runs that another file has already, in a place of another name."""
    runs = {
        (place.setting(name), seed, name): row
        for (place, seed, name), row in finished(known).items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    done = finished(out)
    with out.open("a", encoding="utf-8") as file:
        for item in items:
            place, seed, name = item
            row = runs.get((place.setting(name), seed, name))
            if row is not None and item not in done:
                file.write(json.dumps({**row, "place": dataclasses.asdict(place)}) + "\n")


def work(items: Iterable[Item], out: Path, console: Console, looks: int = 10) -> None:
    """Do what is not done.

    Args:
        items: the runs.
        out: a line of JSON for each finished run.
        console: for a line about each.
        looks: evaluations in a run, after the first.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    done, program = finished(out), programs()
    todo = [item for item in items if item not in done]
    started = time.monotonic()
    for count, (place, seed, name) in enumerate(todo, 1):
        begun, every = time.monotonic(), place.steps // looks
        run = program(place, name, every)(seed)
        seconds = time.monotonic() - begun
        row = {
            "selector": name,
            "seed": seed,
            "place": dataclasses.asdict(place),
            "seconds": round(seconds, 2),
            **line(run, every),
        }
        with out.open("a", encoding="utf-8") as file:
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


def by_selector(rows: list[dict]) -> dict[str, dict[int, dict]]:
    """Runs by selector and seed."""
    found: dict[str, dict[int, dict]] = {}
    for row in rows:
        found.setdefault(row["selector"], {})[row["seed"]] = row
    return found


def summarize(rows: list[dict], default: list[dict]) -> dict:
    """Means, intervals and paired differences of the selectors that have the same seeds.

    Args:
        rows: runs of one place.
        default: runs of the default place, for the accuracies that are to be reached: those in
            which the baseline and dynamic sampling end there.
    """
    by_name, goals = by_selector(rows), by_selector(default)
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
            known = goals.get(target, {})
            if known:
                shared = [seed for seed in seeds if seed in known]
                found = [rollouts_to(runs[s], known[s]["held_out"][-1]) for s in shared]
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
        "to DS",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, mine in sorted(found.items(), key=lambda item: -item[1]["held_out"]["mean"]):
        held, less = mine["held_out"], mine["less_baseline"]
        test, skill = mine.get("test"), mine["brier_skill"]
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
            *(
                "-"
                if mine.get(f"rollouts_to_{goal}") is None
                else f"{mine[f'rollouts_to_{goal}']:,.0f} ({mine[f'reached_{goal}']})"
                for goal in (BASELINE, CEILING)
            ),
        )
    return shown


def report(out: Path, console: Console) -> None:
    """Print what there is, and write it beside the lines."""
    rows = list(finished(out).values())
    places: dict[str, list[dict]] = {}
    for row in rows:
        places.setdefault(row["place"]["name"], []).append(row)
    summary = {}
    for place, mine in places.items():
        summary[place] = summarize(mine, places.get(Place().name, mine))
        if summary[place]:
            console.print(table(place, summary[place]))
    path = out.with_suffix(".summary.json")
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
