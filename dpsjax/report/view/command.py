"""``dpsjax view``: options."""

import dataclasses
import webbrowser
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from dpsjax import checks
from dpsjax.files import write_atomically
from dpsjax.report.view.data import Limits, read_folder
from dpsjax.report.view.page import page

_LIMITS = Limits()
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class ViewArguments:
    """Make one HTML page of a run: its curves, its prompts, and what the policy wrote.

    The page holds all that it shows, and fetches nothing: it can be opened anywhere, sent and kept.
    Runs that go on, several runs side by side, and folders of dpsjax eval are shown too.
    """

    folders: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(name="DIR", metavar="DIR [DIR ...]")
    ]
    """Folders of runs, or of evaluations."""
    out: Path | None = None
    """The file; DIR/view.html of the first folder by default."""
    open: bool = False
    """Show it in the browser."""
    responses: int = _LIMITS.responses
    """Most responses of a run on the page, the newest."""
    images: int = _LIMITS.image_bytes // MIB
    """Most MiB of images of a run on the page, those of prompts with responses first."""

    def __post_init__(self):
        checks.require_counts(least=0, responses=self.responses, images=self.images)


def run(arguments: ViewArguments) -> str:
    """Make the page.

    Args:
        arguments: the options.

    Returns:
        a line for the user.

    Raises:
        OSError: a folder holds no run, or the page cannot be written.
        ValueError: no folder was given, or a file of a run is damaged.
    """
    if not arguments.folders:
        raise ValueError("DIR: give the folder of a run")
    limits = Limits(arguments.responses, image_bytes=arguments.images * MIB)
    runs = [read_folder(folder, limits) for folder in arguments.folders]
    text = page(_told_apart(runs), datetime.now())
    path = arguments.out or arguments.folders[0] / "view.html"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    if arguments.open:
        webbrowser.open(path.absolute().as_uri())
    return f"{path} ({len(text.encode()) / MIB:.1f} MiB): open it in a browser\n"


def _told_apart(runs: list[dict]) -> list[dict]:
    """Names as short as tells the runs apart."""
    if len({run["name"] for run in runs}) == len(runs):
        return runs
    return [{**run, "name": run["folder"]} for run in runs]
