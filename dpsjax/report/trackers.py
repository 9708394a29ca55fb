"""A run's metrics in TensorBoard, Weights & Biases or MLflow, through their own clients.

Numbers go out as they stand in ``metrics.jsonl``, so it does not matter whether they are sent while
a run goes on or afterwards: ``tracker.json`` in the folder keeps the run that they went to and the
last step that was sent. A run that was killed and goes on writes the same lines for the same steps,
and nothing is sent a second time.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dpsjax.files import read_json, write_json

STATE = "tracker.json"
_METRICS, _CONFIG, _SUMMARY = "metrics.jsonl", "config.json", "summary.json"


class Tracker(Protocol):
    """Where numbers go."""

    run_id: str  # by which the same run is found again; empty where the folder is enough

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def attach(self, files: list[Path]) -> None:
        """Take what a run left: its report and plots."""

    def close(self) -> None:
        """Have everything written."""


def scalars(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record, by names with slashes; lists and what is not known are left out.

    >>> scalars({"step": 1, "reward": 0.5, "seconds": {"step": 2.0}, "kl": None, "groups": [1]})
    {'step': 1.0, 'reward': 0.5, 'seconds/step': 2.0}
    """
    found = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = float(value)
    return found


class TensorBoard:
    """Event files in ``DIR/tensorboard``; extra ``tensorboard``."""

    run_id = ""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], after: int) -> None:
        writer = _client("tensorboardX", "tensorboard").SummaryWriter
        self.writer = writer(
            str(folder / "tensorboard"),
            purge_step=after + 1 if after else None,
            filename_suffix=f".{after}",  # files made within a second have one name otherwise
        )
        if not after:
            self.writer.add_text("config", f"```\n{json.dumps(config, indent=2)}\n```", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As every tracker."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def attach(self, files: list[Path]) -> None:
        """As every tracker."""
        for path in files:
            if path.suffix == ".md":
                self.writer.add_text(path.name, path.read_text(encoding="utf-8"), 0)

    def close(self) -> None:
        """As every tracker."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases, with ``WANDB_MODE=offline`` in ``DIR/wandb``; extra ``wandb``."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], after: int) -> None:
        wandb = _client("wandb", "wandb")
        options = {"id": run_id, "resume": "allow"} if run_id else {}
        name = folder.resolve().name
        self.run = wandb.init(
            project="dpsjax", name=name, dir=str(folder), config=dict(config), **options
        )
        self.run_id = self.run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As every tracker."""
        self.run.log(dict(values), step=step)

    def attach(self, files: list[Path]) -> None:
        """As every tracker."""
        for path in files:
            self.run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        """As every tracker."""
        self.run.finish()


class MLflow:
    """A run of MLflow, at ``MLFLOW_TRACKING_URI`` or in ``DIR/mlruns``; extra ``mlflow``."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], after: int) -> None:
        self.mlflow = mlflow = _client("mlflow", "mlflow")
        if not mlflow.environment_variables.MLFLOW_TRACKING_URI.get():
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder must be allowed
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        mlflow.set_experiment("dpsjax")
        run = mlflow.start_run(run_id=run_id or None, run_name=folder.resolve().name)
        self.run_id = run.info.run_id
        if not run_id:
            mlflow.log_dict(dict(config), "config.json")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As every tracker."""
        self.mlflow.log_metrics(dict(values), step=step)

    def attach(self, files: list[Path]) -> None:
        """As every tracker."""
        for path in files:
            self.mlflow.log_artifact(str(path))

    def close(self) -> None:
        """As every tracker."""
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def send(
    folder: Path, to: str, *, follow: bool = False, pause: float = 2.0, wait: float = 600.0
) -> int:
    """Send what was not sent yet.

    Args:
        folder: of a run.
        to: a name of :data:`TRACKERS`.
        follow: go on as lines are written, until the run has its summary.
        pause: seconds between looks at the file.
        wait: seconds without a line after which a run counts as dead.

    Returns:
        how many steps were sent.

    Raises:
        FileNotFoundError: the folder holds no run.
        ImportError: the tracker's client is not installed.
        ValueError: a line of the record is damaged.
    """
    if not (folder / _METRICS).exists() or not (folder / _CONFIG).exists():
        raise FileNotFoundError(f"{folder} holds no {_METRICS} and {_CONFIG} of a run")
    state = read_json(folder / STATE) if (folder / STATE).exists() else {}
    run_id, last = state.get(to, {}).get("id", ""), int(state.get(to, {}).get("step", 0))
    tracker = TRACKERS[to](folder, run_id, read_json(folder / _CONFIG).get("config", {}), last)
    sent = 0
    try:
        for record in _records(folder, follow, pause, wait):
            if record["step"] > last:
                last, sent = record["step"], sent + 1
                tracker.log(last, scalars(record))
        if (folder / _SUMMARY).exists():
            left = [folder / "report.md", *sorted((folder / "plots").glob("*.png"))]
            tracker.attach([path for path in left if path.exists()])
    finally:
        tracker.close()
        write_json(folder / STATE, state | {to: {"id": tracker.run_id, "step": last}})
    return sent


def _records(folder: Path, follow: bool, pause: float, wait: float) -> Iterator[dict[str, Any]]:
    """Whole lines as they come; a file that was cut shorter is read again from its beginning."""
    path, place, seen = folder / _METRICS, 0, time.monotonic()
    while True:
        ended = (folder / _SUMMARY).exists()  # before the lines are read: all are there then
        if path.stat().st_size < place:
            place = 0
        with path.open("rb") as stream:
            stream.seek(place)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        place += len(whole)
        seen = time.monotonic() if whole else seen
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: a line is no JSON: {error}") from error
        if not follow or ended or time.monotonic() - seen > wait:
            return
        time.sleep(pause)


def _client(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'dpsjax[{extra}]'") from error
