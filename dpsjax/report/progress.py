"""Progress for people: a live table on a terminal, one plain line a step anywhere else."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpsjax.loop.metrics import Record

_ROWS = 12  # steps that stay visible


class Pace:
    """Seconds a step, and to the end.

    The first step is left out of the estimate once there is another: it compiles.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.start, self.first = steps, time.monotonic(), None

    def measure(self, step: int) -> tuple[float, float]:
        """Seconds since the start, and the estimate to the end, after ``step``."""
        now = time.monotonic()
        if self.first is None:
            self.first = (step, now)
        since_step, since = self.first
        if step > since_step:
            each = (now - since) / (step - since_step)
        else:
            each = (now - self.start) / max(step, 1)
        return now - self.start, each * (self.steps - step)


def _cells(record: Record, held_out: dict[str, str], elapsed: float, left: float) -> list[str]:
    return [
        str(record["step"]),
        f"{record['reward']:.3f}",
        f"{record['effective_ratio']:.2f}",
        *held_out.values(),
        f"{record['rollouts']:,}",
        f"{elapsed:.0f}",
        f"{left:.0f}",
    ]


_HEADINGS = ("step", "reward", "effective", "held-out", "greedy", "rollouts", "seconds", "ETA s")


@contextmanager
def progress(steps: int, console: Console) -> Iterator[Callable[[Record], None]]:
    """Show the progress of a run while the context is open.

    Args:
        steps: of the run.
        console: where to.

    Yields:
        the function to call with every record.
    """
    pace, seen = Pace(steps), {"accuracy": "-", "greedy": "-"}

    def cells(record: Record) -> list[str]:
        for when in ("held_out_before", "held_out"):
            new = {name: record.get(f"{when}_{name}") for name in seen}
            seen.update({name: f"{value:.3f}" for name, value in new.items() if value is not None})
        return _cells(record, seen, *pace.measure(record["step"]))

    if not console.is_terminal:
        yield lambda record: _print_line(cells(record), steps)
        return
    rows: deque[list[str]] = deque(maxlen=_ROWS)
    with Live(Text("compiling ..."), console=console, refresh_per_second=4) as live:

        def show(record: Record) -> None:
            rows.append(cells(record))
            bar = ProgressBar(steps, record["step"], width=min(72, console.width))
            live.update(Group(_table(rows, console.width), bar))

        yield show


def _print_line(cells: list[str], steps: int) -> None:
    step, reward, effective, held_out, greedy, rollouts, seconds, left = cells
    line = (
        f"step {step}/{steps}  reward {reward}  effective {effective}  held-out {held_out}  "
        f"greedy {greedy}  "
        f"rollouts {rollouts}  {seconds} s  ETA {left} s"
    )
    print(line, file=sys.stdout, flush=True)


# The columns that go first where there is no room for all; a number is never cut.
_DISPENSABLE = ("seconds", "rollouts", "reward", "ETA s")


def _table(rows: deque[list[str]], width: int) -> Table:
    places = list(range(len(_HEADINGS)))
    widths = [max(len(text) for text in column) for column in zip(_HEADINGS, *rows, strict=True)]
    for name in _DISPENSABLE:
        if sum(widths[place] + 1 for place in places) <= width:
            break
        places.remove(_HEADINGS.index(name))
    table = Table(box=None, pad_edge=False)
    for place in places:
        least = 9 if width >= 9 * len(_HEADINGS) + 7 else widths[place]
        table.add_column(_HEADINGS[place], justify="right", min_width=least, no_wrap=True)
    for row in rows:
        table.add_row(*(row[place] for place in places))
    return table
