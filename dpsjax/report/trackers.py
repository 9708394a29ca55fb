"""A run's metrics in TensorBoard, Weights & Biases or MLflow, through their own clients.

Numbers go out as they stand in ``metrics.jsonl``, so it does not matter whether they are sent while
a run goes on or afterwards: ``tracker.json`` in the folder keeps the run that they went to and the
last step that was sent. A run that was killed and goes on writes the same lines for the same steps,
and nothing is sent a second time.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from matplotlib.image import imread

from dpsjax.files import read_json, write_json
from dpsjax.report.callbacks import Callback

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
        writer = _client(*CLIENTS["tensorboard"]).SummaryWriter
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
            else:
                self.writer.add_image(path.name, imread(path), 0, dataformats="HWC")

    def close(self) -> None:
        """As every tracker."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases, with ``WANDB_MODE=offline`` in ``DIR/wandb``; extra ``wandb``."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], after: int) -> None:
        wandb = _client(*CLIENTS["wandb"])
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
        self.mlflow = mlflow = _client(*CLIENTS["mlflow"])
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


CLIENTS = {  # the module of each, and the extra that brings it
    "tensorboard": ("tensorboardX", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
}
TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Sender:
    """Sends what a run's record holds and was not sent yet.

    Args:
        folder: of a run.
        to: a name of :data:`TRACKERS`.

    Raises:
        FileNotFoundError: the folder holds no run.
        ImportError: the tracker's client is not installed.
    """

    def __init__(self, folder: Path, to: str) -> None:
        if not (folder / _METRICS).exists() or not (folder / _CONFIG).exists():
            raise FileNotFoundError(f"{folder} holds no {_METRICS} and {_CONFIG} of a run")
        self.folder, self.to, self.sent, self._place = folder, to, 0, 0
        known = self._known().get(to, {})
        self.last = int(known.get("step", 0))
        config = read_json(folder / _CONFIG).get("config", {})
        self.tracker = TRACKERS[to](folder, known.get("id", ""), config, self.last)

    def catch_up(self) -> bool:
        """Send the whole lines that are new; whether there were any.

        Raises:
            ValueError: a line is damaged.
        """
        path = self.folder / _METRICS
        if path.stat().st_size < self._place:  # cut back to a checkpoint: read it again
            self._place = 0
        with path.open("rb") as stream:
            stream.seek(self._place)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: a line is no JSON: {error}") from error
            if record["step"] > self.last:
                self.last, self.sent = record["step"], self.sent + 1
                self.tracker.log(self.last, scalars(record))
        return bool(whole)

    def attach(self) -> None:
        """Attach what an ended run left: its page and plots."""
        left = [self.folder / "report.md", *sorted((self.folder / "plots").glob("*.png"))]
        self.tracker.attach([path for path in left if path.exists()])

    def close(self) -> None:
        """Have everything written, and remember how far it got."""
        try:
            self.tracker.close()
        finally:
            now = {self.to: {"id": self.tracker.run_id, "step": self.last}}
            write_json(self.folder / STATE, self._known() | now)

    def _known(self) -> dict[str, Any]:
        return read_json(self.folder / STATE) if (self.folder / STATE).exists() else {}


class Live(Callback):
    """A tracker that is sent each step of a run as it is done, and its pictures in the end.

    Args:
        to: a name of :data:`TRACKERS`.

    Raises:
        ImportError: the tracker's client is not installed.
    """

    def __init__(self, to: str) -> None:
        self.to, self.sender = to, None
        module, extra = CLIENTS[to]
        _client(module, extra)

    def on_start(self, folder: Path, step: int) -> None:
        """Open the tracker's run, a new one or that of the folder."""
        self.sender = Sender(folder, self.to)

    def on_step(self, record: Mapping[str, Any]) -> None:
        """Send the step."""
        if self.sender is not None:
            self.sender.catch_up()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Attach the page and the plots."""
        if self.sender is not None:
            self.sender.attach()

    def close(self) -> None:
        """Have everything written."""
        if self.sender is not None:
            self.sender.close()


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
    sender, seen = Sender(folder, to), time.monotonic()
    try:
        while True:
            ended = (folder / _SUMMARY).exists()  # before the lines are read: all are there then
            seen = time.monotonic() if sender.catch_up() else seen
            if ended:
                sender.attach()
            if not follow or ended or time.monotonic() - seen > wait:
                return sender.sent
            time.sleep(pause)
    finally:
        sender.close()


def _client(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'dpsjax[{extra}]'") from error
