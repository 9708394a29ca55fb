"""A whole run: folder, training, checkpoints, summary, weights, plots."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from io import TextIOBase
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

from dpsjax.loop import metrics
from dpsjax.loop.metrics import Record
from dpsjax.loop.state import TrainState
from dpsjax.loop.step import Step
from dpsjax.policy import save_checkpoint, save_weights
from dpsjax.report.callbacks import Callback, Everyone
from dpsjax.report.progress import progress
from dpsjax.report.response_file import append_responses
from dpsjax.report.trace_file import append_step
from dpsjax.run import faults, outputs, processes, reproducer
from dpsjax.run.agreement import make_agree
from dpsjax.run.checkpoint import Saver
from dpsjax.run.claim import claim, refuse_foreign
from dpsjax.run.config import TrainConfig, to_dict
from dpsjax.run.identity import INPUTS, identity, require_inputs, switches
from dpsjax.run.language import is_checkpoint_folder
from dpsjax.run.position import Position, hash_of
from dpsjax.run.resume import meta_of, resume
from dpsjax.run.setup import Run, prepare
from dpsjax.run.signals import Request, Terminated, termination
from dpsjax.run.training import train


class Started(NamedTuple):
    """A run that is about to train.

    Attributes:
        run: what does not change.
        state: where it begins, or goes on.
        position: the same in numbers.
        finished: whether the folder already holds all of it.
        lock: keeps other processes out of the folder; to be closed in the end.
    """

    run: Run
    state: TrainState
    position: Position
    finished: bool
    lock: TextIOBase | None = None

    def close(self) -> None:
        """Give the folder back."""
        if self.lock is not None:
            self.lock.close()


def start(
    config: TrainConfig,
    command: str,
    notify: Callable[[str], None],
    *,
    allow: Sequence[str] = (),
    restart: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> Started:
    """Check the settings against the task, the weights and the devices, and open the folder.

    Args:
        config: the settings.
        command: what was typed, for the record.
        notify: called with sentences about what is continued.
        allow: differences to the run in the folder that are accepted, by name.
        restart: move the run in the folder aside instead of continuing it.
        recorded: digests of the inputs of the run that this one repeats, of its ``config.json``.

    Returns:
        the run. If its folder holds an earlier part of it, it goes on from there.

    Raises:
        ValueError: settings that cannot be, or that differ from those of the run in the folder;
            or the folder is in use, or holds what no run wrote.
        OSError: missing weights, or a folder that cannot be made.
    """
    processes.require_connected()
    common = {"settings": to_dict(config), "versions": outputs.versions()}
    processes.require_same(common | {"allow": allow, "restart": restart}, "at the start")
    run, state = prepare(config)
    require_inputs(run, recorded or {})
    folder, locks = config.folder(), []

    def enter() -> None:
        refuse_foreign(folder)
        locks.append(claim(folder))
        if restart:
            outputs.open_folder(folder)

    processes.from_first(enter)
    try:
        resumed = resume(run, state, folder, allow)
        position = resumed.position
        finished = processes.from_first(lambda: _open(run, command, position))
    except BaseException:
        for lock in locks:
            lock.close()
        raise
    for notice in () if finished else resumed.notices:
        notify(notice)
    return Started(run, resumed.state, position, finished, locks[0] if locks else None)


def _open(run: Run, command: str, position: Position) -> bool:
    """Write the record of a run that is about to go on; tell whether it is finished instead."""
    folder = run.config.folder()
    if position.step >= run.config.steps and (folder / outputs.SUMMARY).exists():
        return True
    manifest = outputs.manifest(run, command) | {
        "inputs": {name: identity(run)[name] for name in (*INPUTS, *run.task.inputs)},
        "jax": switches(),
        "continued_after_step": position.step,
    }
    outputs.write_json(folder / outputs.CONFIG, manifest)
    (folder / outputs.SUMMARY).unlink(missing_ok=True)  # last: a full disk leaves all as it was
    return False


def finish(
    started: Started, console: Console, callbacks: Sequence[Callback] = ()
) -> dict[str, Any] | None:
    """Train to the end, write everything and give the folder back.

    Args:
        started: of :func:`start`; its state is donated.
        console: where progress is shown.
        callbacks: told of it, in the first process.

    Returns:
        the summary; None if a signal ended the run early. The state is saved in both cases.

    Raises:
        NonFiniteError: a step was not finite, and the settings say to stop then.
        OSError: nothing can be written any more.
    """
    try:
        return _finish(started, console, Everyone(callbacks if processes.is_first() else ()))
    finally:
        started.close()


def _finish(started: Started, console: Console, told: Everyone) -> dict[str, Any] | None:
    run, folder = started.run, started.run.config.folder()
    if processes.is_first():
        (folder / outputs.METRICS).touch()
        outputs.begin_trace(run)
        outputs.begin_responses(run, started.position.step)
        outputs.write_pool(run)
    with told.begun(folder, started.position.step):
        state, position = _train(started, console, told)
        if position.step < run.config.steps:
            return None
        _export(run, state)
        proof, belief = outputs.digests(run, state), outputs.beliefs(run, state)

        def sum_up() -> dict[str, Any]:
            summary = _sum_up(run, proof, belief, position.elapsed)
            told.on_end(summary)
            return summary

        return processes.from_first(sum_up)


def _train(started: Started, console: Console, told: Everyone) -> tuple[TrainState, Position]:
    """The state and position after the last step, or where a signal ended the run."""
    run, folder, first = started.run, started.run.config.folder(), processes.is_first()

    def append_to(name: str) -> TextIOBase:
        return (folder / name if first else Path(os.devnull)).open("a", encoding="utf-8")

    with (
        append_to(outputs.METRICS) as stream,
        append_to(outputs.TRACE) as trace,
        append_to(outputs.RESPONSES) as responses,
        progress(run.config.steps, console) if first else nullcontext(_unseen) as report,
        termination() as asked_to_end,
    ):
        notify = _notifier(console)
        saver = Saver(folder / outputs.CHECKPOINTS, run.config.checkpoint, notify)
        try:
            streams = _Streams(stream, trace, responses)
            journal = _Journal(run, folder, streams, saver, notify, told)
            return journal.follow(started, report, asked_to_end)
        except Terminated:
            return started.state, started.position
        finally:
            saver.close()


def _export(run: Run, state: TrainState) -> None:
    """Write the policy: a checkpoint folder if it came from one, else one file."""
    folder, init, params = run.config.folder(), run.config.model.init, run.whole(state.params)
    if is_checkpoint_folder(init):
        save_checkpoint(folder / outputs.MODEL, run.policy, params, source=init)
    else:
        save_weights(folder / outputs.WEIGHTS, run.policy, params)


def _sum_up(run: Run, proof: dict[str, str], belief: np.ndarray, elapsed: float) -> dict[str, Any]:
    """Write plots, table and report, and last the summary, which marks a finished run."""
    folder = run.config.folder()
    records = metrics.read_records(folder / outputs.METRICS)
    summary = outputs.summarize(run, proof, records, elapsed)
    outputs.write_pictures(run, _title(run, records), records, summary, belief)
    outputs.write_json(folder / outputs.SUMMARY, summary)
    return summary


class _Streams(NamedTuple):
    """The files that grow with every step."""

    metrics: TextIOBase
    trace: TextIOBase
    responses: TextIOBase


class _Journal:
    """Writes down a run while it happens: a line a step, checkpoints, faults."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        streams: _Streams,
        saver: Saver,
        notify: Callable[[str], None],
        told: Everyone,
    ) -> None:
        self.run, self.folder, self.saver = run, folder, saver
        self.streams, self.told = streams, told
        self.notices = faults.Notices(notify)
        self.identity, self.versions = identity(run), outputs.versions()

    def follow(
        self, started: Started, report: Callable[[Record], None], asked_to_end: Request
    ) -> tuple[TrainState, Position]:
        """Train until the last step or until asked to end."""
        run, settings = self.run, self.run.config.checkpoint
        state, position, saved = started.state, started.position, time.monotonic()
        begun = time.perf_counter() - position.elapsed
        agree = make_agree(run.mesh)
        written, _ = hash_of(self.folder / outputs.METRICS)
        # Until the first step is done there is nothing that is not on the disk; but of several
        # processes none may leave the others alone.
        asked_to_end.at_once = jax.process_count() == 1
        for after, record, step in train(run, state, position.elapsed):
            asked_to_end.at_once = False
            state = after
            written.update(metrics.write_record(self.streams.metrics, record))
            append_step(self.streams.trace, record)
            append_responses(self.streams.responses, step.responses)
            report(record)
            self.told.on_step(record)
            self._look(state, record, step)
            size = os.fstat(self.streams.metrics.fileno()).st_size
            seconds = time.perf_counter() - begun
            position = Position(record["step"], size, written.hexdigest(), seconds)
            late = time.monotonic() - saved > 60 * settings.minutes
            ending, late = agree(record, state.selector, bool(asked_to_end), late)
            last = position.step == run.config.steps
            if ending or late or last or position.step % settings.every == 0:
                self._save(state, position, record.get("held_out_accuracy"))
                saved = time.monotonic()
            if ending:
                break
        return state, position

    def _save(self, state: TrainState, position: Position, held_out: float | None) -> None:
        if processes.is_first():
            # A checkpoint must never be ahead of the lines it counts.
            for stream in (self.streams.metrics, self.streams.responses):
                os.fsync(stream.fileno())
        meta = meta_of(self.run, self.identity, position, held_out)
        self.saver.save(state, meta | {"versions": self.versions})
        self.told.on_checkpoint(position.step)

    def _look(self, state: TrainState, record: Record, step: Step) -> None:
        """Explain faults; write down what a skipped step was made of."""
        self.notices.look(record, step.errors)
        if not record["skipped_nonfinite"]:
            return
        number, place = record["step"], self.folder / outputs.FAULTS
        path = reproducer.write(place, state, number, step.batch)
        if self.run.config.checkpoint.on_nonfinite == "stop":
            raise faults.NonFiniteError(
                f"step {number}: a loss or gradient is not finite. Its batch, key and parameters: "
                f"{path}, to be repeated with dpsjax.run.reproducer.repeat; "
                "the last checkpoint is from before it: continue with --on-nonfinite skip, or with "
                "other settings and --allow"
            )


def _unseen(record: Record) -> None:
    """Progress is shown by the first process."""


def _notifier(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(escape(text), highlight=False, soft_wrap=True)


def _title(run: Run, records: list[Record]) -> str:
    config = run.config
    group = config.grpo.rollouts_per_prompt
    return (
        f"{run.task.name}, {config.selector.name}, seed {config.seed}: "
        f"{len(records)} steps of {config.rollout.prompts} x {group}"
    )
