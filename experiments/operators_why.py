"""Why a choice of prompts helps or harms, on a real policy: one cause at a time.

    nice -n 10 python experiments/operators_why.py                      # 5 seeds, about an hour
    python experiments/operators_why.py --smoke                         # a minute
    python experiments/operators_why.py --report

Each question changes one thing about runs that are otherwise those of ``operators_table.py``.
"""

import dataclasses
from pathlib import Path

import tyro
from operators_runs import Item, Place, borrow, report, work
from rich.console import Console

POWERS = tuple(f"oracle:power={power}" for power in (0.5, 1, 2, 4, 8))
COOLED = tuple(f"dps:cool_down={steps}" for steps in (4, 12, 24, 40))

# By question: a place, and the selectors that are compared in it.
QUESTIONS: tuple[tuple[Place, tuple[str, ...]], ...] = (
    (Place("which distribution"), ("uniform-epochs", *POWERS, "oracle")),
    (Place("repeats"), ("uniform-epochs", "dps", *COOLED, "frontier")),
    (
        Place("loss weights"),
        (
            "uniform-epochs",
            "oracle:power=1",
            "oracle:power=0.5,weighted=True",
            "oracle:power=1,weighted=True",
        ),
    ),
    (
        Place("knowledge 5 steps old", oracle_every=5),
        ("uniform-epochs", "oracle:power=1", "oracle:power=4"),
    ),
    (
        Place("knowledge 20 steps old", oracle_every=20),
        ("uniform-epochs", "oracle:power=1", "oracle:power=4"),
    ),
    (
        Place("knowledge 60 steps old", oracle_every=60),
        ("uniform-epochs", "oracle:power=1", "oracle:power=4"),
    ),
    (
        Place("silent groups in the denominator", count_uninformative=True),
        ("uniform-epochs", "dps", "dps:cool_down=12", "oracle:power=4"),
    ),
    (
        Place("ablations of DPS"),
        (
            "uniform-epochs",
            "dps",
            *(f"dps:decay={decay}" for decay in (0, 0.2, 0.8, 1)),
            *(f"dps:num_states={states}" for states in (2, 5, 7)),
            *(f"dps:prior_alpha='{prior}'" for prior in ("progress", "stability", "local")),
            "dps:entropy=0.1",
            "dps:candidates=512",
        ),
    ),
    (Place("groups of 4", group=4), ("uniform-epochs", "dps", "frontier")),
    (Place("groups of 16", group=16), ("uniform-epochs", "dps", "frontier")),
    (
        Place("advantages not divided by the deviation", advantages="centered"),
        ("uniform-epochs", "dps", "frontier", "oracle:power=1"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    out: Path = Path("experiments/results/operators_why.jsonl")
    """A line of JSON for each finished run."""
    known: Path = Path("experiments/results/operators_table.jsonl")
    """Runs that need not be made again: those of the table."""
    seeds: int = 5
    """Runs of each selector."""
    first_seed: int = 0
    """Seeds are those from this one on."""
    only: str = ""
    """Questions whose name holds this text; all if not given."""
    report: bool = False
    """Only print what there is."""
    smoke: bool = False
    """A few steps, to see that it works."""


def main(config: Config) -> None:
    """Run what is missing, then report."""
    console = Console(width=190)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    items: list[Item] = [
        (place, seed, name)
        for place, names in QUESTIONS
        if config.only in place.name
        for seed in seeds
        for name in names
    ]
    if config.smoke:
        small = Place("smoke", problems=200, steps=10, oracle_every=5)
        items = [(small, 0, name) for name in ("uniform-epochs", "oracle:power=1,weighted=True")]
    if not config.report:
        borrow(items, config.out, config.known)
        work(items, config.out, console)
    report(config.out, console)


if __name__ == "__main__":
    main(tyro.cli(Config))
