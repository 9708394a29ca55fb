"""What a run knows of each prompt at its end: a table, and the prompts worth a look."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpsjax.loop.metrics import Record
from dpsjax.tasks.base import Problem

# A prompt counts as stuck after so many visits without one right answer.
STUCK_VISITS = 3


class Visit(NamedTuple):
    """All rollouts of a prompt in one step."""

    step: int
    passes: int
    trials: int

    @property
    def rate(self) -> float:
        """Share of the rollouts that were right."""
        return self.passes / self.trials


class PromptTable(NamedTuple):
    """Columns over the pool, in the order of the prompts.

    Attributes:
        prompt: Id, from 0.
        source: The group that its task reports it under.
        visits: Steps with at least one valid rollout of it.
        passes: Right rollouts in all of them.
        trials: Valid rollouts in all of them.
        last_rate: Share of right rollouts in the last, None if never visited.
        previous_rate: In the one before.
        best_rate: The highest.
        belief: Chances that none, some or all rollouts of the next visit pass.
        first_step: Of the first visit, from 1, None if there is none.
        last_step: Of the last visit.
    """

    prompt: list[int]
    source: list[str]
    visits: list[int]
    passes: list[int]
    trials: list[int]
    last_rate: list[float | None]
    previous_rate: list[float | None]
    best_rate: list[float | None]
    belief: list[list[float]]
    first_step: list[int | None]
    last_step: list[int | None]


def histories(records: Sequence[Record], num_prompts: int) -> list[list[Visit]]:
    """The visits of every prompt, in order.

    Args:
        records: of all steps.
        num_prompts: N.

    Returns:
        a list for each prompt.
    """
    visits: list[list[Visit]] = [[] for _ in range(num_prompts)]
    for record in records:
        groups = record["groups"]
        columns = zip(groups["prompt"], groups["passes"], groups["trials"], strict=True)
        for prompt, passes, trials in columns:
            of = visits[prompt]
            if trials and of and of[-1].step == record["step"]:  # in another round of the step
                last = of.pop()
                passes, trials = last.passes + passes, last.trials + trials
            if trials:
                of.append(Visit(record["step"], passes, trials))
    return visits


def prompt_table(
    problems: Sequence[Problem], visits: Sequence[Sequence[Visit]], belief: np.ndarray
) -> PromptTable:
    """The table of a run.

    Args:
        problems: the pool.
        visits: of :func:`histories`.
        belief: float[3, N or more], at the end.

    Returns:
        the table.
    """
    rates = [[visit.rate for visit in of] for of in visits]
    rounded = np.round(np.asarray(belief, np.float64), 6)
    return PromptTable(
        prompt=list(range(len(problems))),
        source=[problem.source for problem in problems],
        visits=[len(of) for of in visits],
        passes=[sum(visit.passes for visit in of) for of in visits],
        trials=[sum(visit.trials for visit in of) for of in visits],
        last_rate=[of[-1] if of else None for of in rates],
        previous_rate=[of[-2] if len(of) > 1 else None for of in rates],
        best_rate=[max(of, default=None) for of in rates],
        belief=[rounded[:, number].tolist() for number in range(len(problems))],
        first_step=[of[0].step if of else None for of in visits],
        last_step=[of[-1].step if of else None for of in visits],
    )


def write_table(folder: Path, table: PromptTable) -> Path:
    """Write ``prompts.parquet``, or ``prompts.csv`` where pyarrow is not installed.

    Args:
        folder: DIR.
        table: what to write. In the CSV each of the three chances has a column.

    Returns:
        the file. What the other kind of an earlier end of the run left is removed.
    """
    arrow = _pyarrow()
    path = folder / ("prompts.csv" if arrow is None else "prompts.parquet")
    partial = path.with_name(path.name + ".partial")
    if arrow is None:
        _write_csv(partial, table)
    else:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]

        parquet.write_table(arrow.table(table._asdict()), partial)
    partial.replace(path)
    other = folder / ("prompts.parquet" if arrow is None else "prompts.csv")
    other.unlink(missing_ok=True)
    return path


def _pyarrow() -> Any:
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return pyarrow


def _write_csv(path: Path, table: PromptTable) -> None:
    columns = {name: values for name, values in table._asdict().items() if name != "belief"}
    size = len(table.belief[0]) if table.belief else 0
    for state in range(size):
        columns[f"belief_{state}"] = [probability[state] for probability in table.belief]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def hardest(table: PromptTable) -> list[int]:
    """Visited prompts by how rarely they were solved, the most tried first among equals."""
    tried = [row for row in table.prompt if table.trials[row]]
    return sorted(
        tried, key=lambda row: (table.passes[row] / table.trials[row], -table.trials[row], row)
    )


def stuck(table: PromptTable) -> list[int]:
    """Prompts visited at least :data:`STUCK_VISITS` times and never solved, most visits first."""
    found = [
        row for row in table.prompt if table.visits[row] >= STUCK_VISITS and table.passes[row] == 0
    ]
    return sorted(found, key=lambda row: (-table.visits[row], row))


def regressed(table: PromptTable) -> list[int]:
    """Prompts that were solved, at least partly, and all wrong at their last visit.

    Those that fell from the highest rate first; among equals the latest visit.
    """
    found = [row for row in table.prompt if table.last_rate[row] == 0 and table.best_rate[row]]
    return sorted(
        found, key=lambda row: (-(table.best_rate[row] or 0), -(table.last_step[row] or 0), row)
    )
