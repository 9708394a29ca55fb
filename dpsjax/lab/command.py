"""``dpsjax compare``: options, progress and output; the work is in :mod:`dpsjax.lab.compare`."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from dpsjax.lab.compare import ORACLE, UNIFORM, Comparison, compare
from dpsjax.lab.contenders import Contender, contender, looked_up, named
from dpsjax.lab.report import finding, table, write
from dpsjax.lab.simulate import Setting
from dpsjax.lab.students import STUDENTS, Student, student
from dpsjax.lab.traces import read_trace, recorded


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare selectors on simulated students, or on recorded rollouts, at equal rollouts.

    Prints a table and what was found; the folder of the results holds comparison.json and plots.
    """

    student: Annotated[str, tyro.conf.arg(help=f"Which student: {', '.join(STUDENTS)}.")] = (
        "limited-lessons"
    )
    selectors: tuple[str, ...] = tuple(named())
    """Which selectors, all by default; uniform and the oracle always run."""
    reference: str = "dps"
    """Whom the others are compared with."""
    seeds: int = 10
    """Runs of each selector; every selector meets the same students."""
    steps: int = 150
    """Steps of batch times rollouts."""
    pool: int = 8000
    """Prompts to choose from."""
    batch: int = 256
    """Prompts rolled out in a step."""
    rollouts: int = 8
    """Rollouts of each chosen prompt."""
    delay: int = 0
    """Steps by which rollouts arrive late, besides the age of the policy in a trace."""
    trace: Path | None = None
    """A recorded full-pool trace (JSONL or Parquet) to replay instead of a student."""
    out: Path = Path("runs/compare")
    """Folder of the results."""

    def __post_init__(self):
        if self.student not in STUDENTS:
            raise ValueError(f"student={self.student!r} must be one of {', '.join(STUDENTS)}")
        for name in (*self.selectors, self.reference):
            looked_up(name)
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")


def _able(
    names: Mapping[str, None], who: Student, setting: Setting, replay: bool, console: Console
) -> dict[str, Contender]:
    """The contenders for whom this student is one; it says who is left out, and why.

    The groups of a trace are taken as they are, so their numbers of rollouts are given.
    """
    offered = jax.eval_shape(lambda key: who.data(who.init(key, setting.pool)), jax.random.key(0))
    kept, left = {}, {}
    for name in names:
        made = contender(name, setting.rollouts)
        missing = [column for column in looked_up(name)[0].needs if column not in offered]
        if missing:
            left.setdefault(f"they need the {' and '.join(missing)} of a prompt", []).append(name)
        elif replay and (made.most is not None or made.screen is not None):
            left.setdefault("they choose how many rollouts a prompt gets", []).append(name)
        else:
            kept[name] = made
    for why, those in left.items():
        text = f"left out, because {why}: {', '.join(those)}"
        console.print(text, highlight=False, soft_wrap=True)
    return kept


def run(arguments: CompareArguments, console: Console) -> Comparison:
    """Run the comparison, print it and write its files.

    Args:
        arguments: the options.
        console: where to print.

    Returns:
        the comparison.

    Raises:
        ValueError: if a size or the trace is not valid.
        OSError: if a file cannot be read or written.
    """
    started = time.perf_counter()
    setting = Setting(
        arguments.pool, arguments.batch, arguments.rollouts, arguments.steps, arguments.delay
    )
    title, who = arguments.student, student(STUDENTS[arguments.student]())
    if arguments.trace is not None:
        trace = read_trace(arguments.trace)
        title, who = arguments.trace.name, recorded(trace)
        steps = min(arguments.steps, int(trace.step.max()) + 1)
        setting = dataclasses.replace(setting, pool=trace.num_prompts, steps=steps)
    names = dict.fromkeys((*arguments.selectors, arguments.reference))
    contenders = _able(names, who, setting, arguments.trace is not None, console)
    total = len({*contenders, UNIFORM, ORACLE})
    with console.status(f"{total} selectors on {title}, {arguments.seeds} seeds ...") as status:
        done = []

        def report(name: str, seconds: float) -> None:
            done.append(name)
            status.update(f"{len(done)} of {total}: {name} ({seconds:.1f} s)")

        found = compare(
            contenders, who, setting, arguments.seeds, arguments.reference, title, report
        )
    console.print(table(found))
    console.print(finding(found), highlight=False, soft_wrap=True)
    files = write(found, arguments.out)
    console.print(
        f"{total} selectors in {time.perf_counter() - started:.0f} s; {len(files)} files in "
        f"{arguments.out}",
        highlight=False,
        soft_wrap=True,
    )
    return found
