"""Which prompts to choose, on a real policy whose pass rates are known exactly: the table.

    nice -n 10 python experiments/operators_table.py                    # 10 seeds, about an hour
    python experiments/operators_table.py --smoke                       # a minute
    python experiments/operators_table.py --long                        # as many rollouts as DS
    python experiments/operators_table.py --map                         # other settings, 3 seeds

The same command goes on where it stopped. At the end, or with ``--report`` at any time, the table
is printed and written beside the lines: accuracy is exact, differences are paired by seed.
"""

import dataclasses
from pathlib import Path

import tyro
from make_operators_base import Config as BaseConfig
from make_operators_base import main as make_base
from operators_runs import Place, made, report, work
from rich.console import Console

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
    "insight",
    "greso",
    "frontier",
    "oracle",
    "oracle:power=1",
    "oracle:power=4",
)

# Passes over the pool, batch and learning rate around the default, at equal rollouts; and bases
# that are wrong in another way: by noise alone (all operators alike), and by weaker habits.
BASES = {
    "noise": (0.8,) * 26,
    "weak-habits": (1.0,) * 17 + (0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2),
}
MAP = (
    Place("half a pass", problems=12_800),
    Place("12.8 passes", problems=500),
    Place("batch 64", batch=64, steps=100),
    Place("batch 16", batch=16, steps=400),
    Place("learning rate 2e-4", learning_rate=2e-4),
    Place("learning rate 5e-4", learning_rate=5e-4),
    Place("learning rate 2e-3", learning_rate=2e-3),
    Place("base wrong by noise", base="noise"),
    Place("base with weak habits", base="weak-habits"),
)
LONG = (Place("750 updates", steps=750),)  # as many rollouts as dynamic sampling makes in 200
MAPPED = ("uniform-epochs", "dps", "frontier", "oracle:power=1")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    out: Path = Path("experiments/results/operators_table.jsonl")
    """A line of JSON for each finished run."""
    selectors: tuple[str, ...] = ()
    """Names of the catalogue and its variants, with keywords (dps:cool_down=12), and oracles."""
    seeds: int = 0
    """Runs of each selector: 10, or 3 on the map, or 5 long ones."""
    first_seed: int = 0
    """Seeds are those from this one on."""
    map: bool = False
    """Run the settings of the map, not the default."""
    long: bool = False
    """Run as many updates as give the rollouts of dynamic sampling."""
    report: bool = False
    """Only print what there is."""
    smoke: bool = False
    """A few steps of two selectors, to see that it works."""


def main(config: Config) -> None:
    """Run what is missing, then report."""
    console = Console(width=190)
    places = MAP if config.map else LONG if config.long else (Place(),)
    names = config.selectors or (MAPPED if config.map or config.long else FIELD)
    seeds = config.seeds or (3 if config.map else 5 if config.long else 10)
    if config.smoke:
        places, names, seeds = (
            (Place("smoke", problems=200, steps=10),),
            ("uniform-epochs", "dps"),
            2,
        )
    items = [
        (place, seed, name)
        for place in places
        for seed in range(config.first_seed, config.first_seed + seeds)
        for name in names
    ]
    if not config.report:
        for base in {place.base for place in places} - {""}:
            if not made(base).exists():
                make_base(BaseConfig(out=made(base), right=BASES[base]))
        work(items, config.out, console)
    report(config.out, console)


if __name__ == "__main__":
    main(tyro.cli(Config))
