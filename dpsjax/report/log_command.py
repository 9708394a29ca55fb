"""``dpsjax log``: options."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dpsjax.report import trackers


@dataclasses.dataclass(frozen=True)
class LogArguments:
    """Send the metrics of a run to a tracker, while it goes on or afterwards.

    What was sent already is not sent again: DIR/tracker.json keeps the run's id and the last step.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's folder."""
    to: Literal["tensorboard", "wandb", "mlflow"] = "tensorboard"
    """tensorboard: DIR/tensorboard. wandb: your account, or WANDB_MODE=offline. mlflow:
    MLFLOW_TRACKING_URI, or DIR/mlruns. Each is an extra: pip install 'dpsjax[NAME]'."""
    follow: bool = False
    """Go on as the run does, until it has ended."""


def run(arguments: LogArguments) -> str:
    """Send, and say how much.

    Args:
        arguments: the options.

    Returns:
        a line for the user.

    Raises:
        OSError: the folder holds no run.
        ImportError: the tracker's client is not installed.
        ValueError: the record is damaged.
    """
    sent = trackers.send(arguments.folder, arguments.to, follow=arguments.follow)
    return f"{sent} steps sent to {arguments.to}\n"
