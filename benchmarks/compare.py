"""Claim: 20 selectors x 10 seeds x 150 steps of 256 out of 8,000 take less than 5 minutes.

    python benchmarks/compare.py

Two CPU cores, compilation included; uniform and the oracle, which always run, come on top of the
twenty. The cache of compiled programs is off. A second claim, for sweeps: eight decays of DPS cost
one compilation.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from common import save

from dpsjax import selectors
from dpsjax.lab.compare import compare
from dpsjax.lab.contenders import Contender, contender
from dpsjax.lab.report import finding
from dpsjax.lab.simulate import Setting, sweep
from dpsjax.lab.students import STUDENTS, student

TWENTY = (
    "uniform-epochs",
    "dps",
    "dps-cool",
    "dps-proportional",
    "dps-entropy",
    "dps-binomial",
    "mopps",
    "beta-mean",
    "beta-cool",
    "mapp",
    "mapp-top",
    "insight",
    "kgps",
    "arcus",
    "cures",
    "lilo",
    "gcs",
    "history-resampling",
    "greso",
    "vcrl",
)


@dataclass
class Options:
    """Sizes, and where the record goes."""

    student: str = "limited-lessons"
    selectors: tuple[str, ...] = TWENTY
    seeds: int = 10
    steps: int = 150
    pool: int = 8000
    batch: int = 256
    out: Path = Path("runs/benchmarks")


def main(options: Options) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    who = student(STUDENTS[options.student]())
    setting = Setting(options.pool, options.batch, 8, options.steps)
    begun = time.perf_counter()
    field = {name: contender(name, setting.rollouts) for name in options.selectors}
    found = compare(field, who, setting, options.seeds)
    whole = time.perf_counter() - begun
    traces = []

    def make(decay):
        traces.append(decay)
        return Contender(selectors.dps(decay=decay))

    begun = time.perf_counter()
    decays = jnp.linspace(0, 1, 8, dtype=jnp.float32)
    jax.block_until_ready(sweep(make, decays, who, options.seeds, setting))
    swept = time.perf_counter() - begun
    record = {
        "setting": vars(setting),
        "seeds": options.seeds,
        "selectors": len(field),
        "seconds": round(whole, 1),
        "seconds_of_each": {name: round(value, 1) for name, value in found.seconds.items()},
        "sweep": {"decays": 8, "seconds": round(swept, 1), "traces": len(traces)},
        "finding": finding(found),
    }
    print(f"{len(field)} selectors in {whole:.0f} s; 8 decays in {swept:.0f} s, one trace")
    save("compare", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
