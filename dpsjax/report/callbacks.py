"""What a run tells others while it goes on: a class to inherit from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Callback:
    """Called by a run, in its first process, between steps; each method does nothing by itself.

    A run waits for each call, and an error in one ends it, as a full disk does: what was saved is
    saved. What is handed over is to be read, not changed.
    """

    def on_start(self, folder: Path, step: int) -> None:
        """A run is about to train.

        Args:
            folder: of its results; ``config.json`` is there.
            step: how many steps are done already; 0 for a new run.
        """

    def on_step(self, record: Mapping[str, Any]) -> None:
        """A step is done, and its line is in ``metrics.jsonl``.

        Args:
            record: that line.
        """

    def on_checkpoint(self, step: int) -> None:
        """The state after a step was handed over to be saved.

        Args:
            step: number of the step.
        """

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """All steps are done, and all files are written; not called where a run was stopped.

        Args:
            summary: what ``summary.json`` holds.
        """

    def close(self) -> None:
        """The run is over, done or stopped or failed; called once, last."""


class Everyone(Callback):
    """Hands each call on to several, in their order.

    Args:
        callbacks: them.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = tuple(callbacks)

    def on_start(self, folder: Path, step: int) -> None:
        """As :class:`Callback`."""
        for callback in self.callbacks:
            callback.on_start(folder, step)

    def on_step(self, record: Mapping[str, Any]) -> None:
        """As :class:`Callback`."""
        for callback in self.callbacks:
            callback.on_step(record)

    def on_checkpoint(self, step: int) -> None:
        """As :class:`Callback`."""
        for callback in self.callbacks:
            callback.on_checkpoint(step)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """As :class:`Callback`."""
        for callback in self.callbacks:
            callback.on_end(summary)

    @contextmanager
    def begun(self, folder: Path, step: int) -> Iterator["Everyone"]:
        """From ``on_start`` to ``close``, whatever happens in between."""
        with _closing(self.callbacks):
            self.on_start(folder, step)
            yield self


@contextmanager
def _closing(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Close all of them, also where closing one of them fails."""
    if not callbacks:
        yield
        return
    try:
        with _closing(callbacks[1:]):
            yield
    finally:
        callbacks[0].close()
