"""Claim: `dpsjax train countdown` learns what no temperature of its base gives, over several seeds.

    python experiments/countdown_seeds.py --selectors dps uniform-epochs uniform

Runs the main job once for each selector and seed (a run that is there already is kept), then prints
means with 95 % intervals, whether the claims hold, and paired differences against the last selector
named. A seed decides the policy's samples and the selections; the problems are always the same.

Afterwards every prompt of a finished run's pool is rolled out once more, to judge the predicted
P(partial) of all of them: skill is 1 - Brier / Brier of the base rate, above 0 if it knows more.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from dpsjax.lab.statistics import against, interval
from dpsjax.loop.build import round_up
from dpsjax.loop.metrics import read_records
from dpsjax.loop.prompts import gather
from dpsjax.loop.rollout import score_rollouts
from dpsjax.run import outputs
from dpsjax.run.config import from_dict
from dpsjax.run.run import start

MEASURES = (
    "accuracy_before",
    "greedy_before",
    "best_before",
    "accuracy_after",
    "greedy_after",
    "learned",
    "learned_greedy",
    "learned_best",
    "effective_ratio",
    "passes",
    "coverage",
    "brier_skill",
    "occupancy_moved",
    "seconds",
    "peak_memory_mib",
)
# What the default run is made for: measure, least or most, and of which selector.
CLAIMS = (
    ("learned", ">=", 0.10, None),
    ("learned_greedy", ">=", 0.08, None),
    ("learned_best", ">=", 0.10, None),
    ("passes", ">=", 5.0, None),
    ("effective_ratio", "<=", 0.4, "uniform"),
    ("brier_skill", ">", 0.0, "dps"),
    ("seconds", "<=", 300.0, None),
    ("peak_memory_mib", "<=", 4096.0, None),
)
COMPARED = ("accuracy_after", "greedy_after", "effective_ratio")
SMOKE = (
    "--steps 2 --prompts 4 --task.problems 8 --task.held-out 8 --evaluation.problems 8 "
    "--grpo.rollouts-per-prompt 2 --init random --model.width 32 --model.mlp-width 64 "
    "--model.layers 1 --model.heads 4 --model.head-dim 8 --task.sizes 2 --task.weights 1 "
    "--task.response-tokens 8 --mesh.data 1"
)


@dataclass
class Options:
    """Which runs, and where they are kept."""

    selectors: list[str] = field(default_factory=lambda: ["dps", "uniform-epochs", "uniform"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    options: str = ""
    """More options of `dpsjax train countdown`, for every run."""
    smoke: bool = False
    """Two seeds of two tiny steps: whether it works, no figures."""
    out: Path = Path("runs/countdown_seeds")
    """Folder of the runs, and of table.json."""


def run(options: Options, selector: str, seed: int) -> dict:
    """The summary of one run, made now unless it is there, and what the claims need."""
    folder = options.out / f"{selector}-{seed}"
    command = [sys.executable, "-m", "dpsjax.cli", "train", "countdown"]
    command += ["--selector", selector, "--seed", str(seed), "--out", str(folder)]
    command += shlex.split(options.options)
    if not (folder / outputs.SUMMARY).exists():
        print(shlex.join(command[2:]), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = folder / "pool.json"
    if not found.exists():
        outputs.write_json(found, judge_predictions(folder))
    summary = json.loads((folder / outputs.SUMMARY).read_text(encoding="utf-8"))
    before = max(summary["accuracy_before_by_temperature"].values())
    visits = sum(len(r["groups"]["prompt"]) for r in read_records(folder / outputs.METRICS))
    return {
        **summary,
        **json.loads(found.read_text(encoding="utf-8")),
        "best_before": before,
        "learned": summary["accuracy_after"] - summary["greedy_before"],
        "learned_greedy": summary["greedy_after"] - summary["greedy_before"],
        "learned_best": summary["accuracy_after"] - before,
        "passes": visits / summary["pool"],
    }


def judge_predictions(folder: Path) -> dict[str, float]:
    """The predicted P(partial) of the whole pool at the end of a run, against new rollouts."""
    config = from_dict(json.loads((folder / outputs.CONFIG).read_text(encoding="utf-8"))["config"])
    started = start(config, "", print)
    done, params = started.run, started.run.whole(started.state.params)
    predicted = outputs.beliefs(done, started.state)[1:-1].sum(axis=0)
    pool, shape, mixed = len(done.task.train), done.mesh.shape, []
    rows = round_up(config.rollout.prompts, shape["data"] * shape["fsdp"])
    key = jax.random.key(config.seed + 1)
    for first in range(0, pool, rows):
        ids = np.arange(first, first + rows, dtype=np.int32)
        ids = jnp.asarray(np.where(ids < pool, ids, -1))
        prompts = gather(done.prompts, ids)
        with jax.set_mesh(done.mesh):
            made = done.stages.generate(params, jax.random.fold_in(key, first), *prompts)
        correct = np.asarray(score_rollouts(done.task, done.task.train, ids, made)[0].correct)
        mixed.append(correct.any(axis=1) & ~correct.all(axis=1))
    started.close()
    partial = np.concatenate(mixed)[:pool]
    rate, brier = float(partial.mean()), float(((predicted - partial) ** 2).mean())
    shares = np.array([r["occupancy"] for r in read_records(folder / outputs.METRICS)])
    return {
        "partial_in_pool": rate,
        "brier": brier,
        "brier_skill": 1 - brier / max(rate * (1 - rate), 1e-9),
        "occupancy_moved": float(np.abs(shares - shares[0]).sum(axis=1).max() / 2),
    }


def judged(values: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    """Which claims hold, by the mean over the seeds and in how many of them."""
    found = []
    for measure, sign, bar, only in CLAIMS:
        for name, of_seed in values[measure].items():
            if only in (None, name):
                holds = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater}[sign]
                row = {"selector": name, "measure": measure, "bar": f"{sign} {bar:g}"}
                row |= {"mean": float(of_seed.mean()), "holds": bool(holds(of_seed.mean(), bar))}
                found.append(row | {"seeds": f"{int(holds(of_seed, bar).sum())}/{of_seed.size}"})
    return found


def main(options: Options) -> None:
    """Run, print, record."""
    if options.smoke:
        options.options, options.seeds = f"{SMOKE} {options.options}", options.seeds[:2]
    found: dict[str, list[dict]] = {selector: [] for selector in options.selectors}
    for seed in options.seeds:
        for selector in options.selectors:
            found[selector].append(run(options, selector, seed))
    values = {
        measure: {name: np.array([s[measure] for s in rows]) for name, rows in found.items()}
        for measure in MEASURES
    }
    command = shlex.join(["python", *sys.argv])
    record: dict = {"command": command, "seeds": options.seeds, "means": {}, "runs": {}}
    table = Table("", *options.selectors, title=f"{len(options.seeds)} seeds, mean [95 %]")
    cells = {m: {name: interval(v) for name, v in of.items()} for m, of in values.items()}
    for measure, of in cells.items():
        table.add_row(measure, *(f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in of.values()))
    Console().print(table)
    for name, rows in found.items():
        record["means"][name] = {measure: list(cells[measure][name][:3]) for measure in MEASURES}
        record["runs"][name] = [{measure: row[measure] for measure in MEASURES} for row in rows]
    record["base_by_temperature"] = found[options.selectors[0]][0]["accuracy_before_by_temperature"]
    record["claims"] = judged(values)
    for row in record["claims"]:
        verdict = "holds" if row["holds"] else "does not hold"
        print("{selector}: {measure} {bar}: {mean:.3f}, seeds {seeds}:".format(**row), verdict)
    record["against"] = {}
    for measure in COMPARED if len(options.selectors) > 1 else ():
        for name, d in against(values[measure], options.selectors[-1]).items():
            record["against"][f"{name}: {measure}"] = list(d)
            print(
                f"{name} - {options.selectors[-1]}, {measure}: {d[0]:+.3f} "
                f"[{d[1]:+.3f}, {d[2]:+.3f}], Holm p = {d[4]:.3f}"
            )
    outputs.write_json(options.out / "table.json", record)


if __name__ == "__main__":
    main(tyro.cli(Options))
