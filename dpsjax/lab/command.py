"""``dpsjax compare``: options, progress and output; the work is in :mod:`dpsjax.lab.compare`."""

import dataclasses
import time
from pathlib import Path

from rich.console import Console

from dpsjax.lab.compare import ORACLE, Comparison, compare, finding, table, write
from dpsjax.lab.contenders import CONTENDERS, STUDENTS
from dpsjax.lab.simulate import Contender, Setting
from dpsjax.lab.students import student
from dpsjax.lab.traces import read_trace, recorded


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare selectors on simulated students, or on recorded rollouts, at equal rollouts.

    Prints a table and what was found; the folder of the results holds comparison.json and plots.
    """

    student: str = "limited-lessons"
    """Which student: correlated-topics, forgetting, limited-lessons, logit-normal, noisy-verifier,
    regime-shift, slow or unlocking."""
    selectors: tuple[str, ...] = tuple(CONTENDERS)
    """Which selectors; uniform and the oracle always run."""
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
            if name not in CONTENDERS:
                raise ValueError(f"selector={name!r} must be one of {', '.join(CONTENDERS)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")


def _replayable(contenders: dict[str, Contender], console: Console) -> dict[str, Contender]:
    """Those that take the groups of a trace as they are, whose numbers of rollouts are given."""
    kept = {n: c for n, c in contenders.items() if c.allocate is None and not c.screen}
    if left := [name for name in contenders if name not in kept]:
        console.print(
            f"left out, because they choose how many rollouts a prompt gets: {', '.join(left)}",
            highlight=False,
            soft_wrap=True,
        )
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
    contenders = {name: CONTENDERS[name](setting.rollouts) for name in names}
    if arguments.trace is not None:
        contenders = _replayable(contenders, console)
    total = len({*contenders, "uniform", ORACLE})
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
