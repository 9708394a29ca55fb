"""A whole run: folder, training, summary, weights, state, plots."""

import time
from typing import Any

from rich.console import Console

from dpsjax.train import outputs, plots
from dpsjax.train.config import TrainConfig
from dpsjax.train.loop import train
from dpsjax.train.metrics import Record
from dpsjax.train.progress import progress
from dpsjax.train.selectors import selector_name
from dpsjax.train.setup import Run, prepare
from dpsjax.train.state import TrainState


def start(config: TrainConfig, command: str) -> tuple[Run, TrainState]:
    """Check the settings against the task, the weights and the devices, and open the folder.

    Args:
        config: the settings.
        command: what was typed, for the record.

    Returns:
        ``(run, state)``.

    Raises:
        ValueError: settings that cannot be.
        OSError: missing weights, or a folder that cannot be made.
    """
    run, state = prepare(config)
    folder = config.folder()
    outputs.open_folder(folder)
    outputs.write_json(folder / outputs.CONFIG, outputs.manifest(run, command))
    return run, state


def finish(run: Run, state: TrainState, console: Console, started: float) -> dict[str, Any]:
    """Train to the end and write everything.

    Args:
        run: of :func:`start`.
        state: its state, donated.
        console: where progress is shown.
        started: ``time.perf_counter()`` at the start, for the seconds of the summary.

    Returns:
        the summary.
    """
    config, folder = run.config, run.config.folder()
    with (
        (folder / outputs.METRICS).open("w") as stream,
        progress(config.steps, console) as report,
    ):
        state, records = train(run, state, stream, report)
    outputs.save_final(folder, run, state)
    summary = outputs.summarize(run, state, records, time.perf_counter() - started)
    plots.write_plots(folder / outputs.PLOTS, records, _title(run, records), len(run.task.train))
    outputs.write_json(folder / outputs.SUMMARY, summary)
    return summary


def _title(run: Run, records: list[Record]) -> str:
    config = run.config
    group = config.grpo.rollouts_per_prompt
    return (
        f"{run.task.name}, {selector_name(config.selector)}, seed {config.seed}: "
        f"{len(records)} steps of {config.rollout.prompts} x {group}"
    )
