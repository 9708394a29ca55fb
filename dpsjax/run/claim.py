"""The folder of a run: one process writes into it at a time, and only where nothing else is."""

import fcntl
import json
import os
import socket
from io import TextIOBase
from pathlib import Path

from dpsjax.run import outputs

LOCK = ".lock"


def claim(folder: Path) -> TextIOBase:
    """Make sure that no other process trains into a folder.

    The system gives the lock back when the process ends, in whatever way. File systems without
    locks (some network and object stores) are used without one.

    Args:
        folder: DIR; it is made if it is not there.

    Returns:
        the lock; close it when the run ends.

    Raises:
        ValueError: another process has it.
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read(200).strip() or "another process"
        lock.close()
        raise ValueError(
            f"out={str(folder)!r} is in use by {owner}: wait for it to end, or choose another --out"
        ) from None
    except OSError:
        return lock
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder in which a run would overwrite what no run has written.

    Args:
        folder: DIR; it need not exist.

    Raises:
        ValueError: it holds files with the names of a run's results, and no record of a run.
        NotADirectoryError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"out={str(folder)!r} is a file: choose another --out")
    found = outputs.results(folder)
    sealed = any((folder / outputs.CHECKPOINTS).glob("*/SHA256.json"))
    if found and not sealed and not _is_record(folder / outputs.CONFIG):
        names = ", ".join(path.name for path in found)
        raise ValueError(
            f"out={str(folder)!r} holds {names}, which no run wrote, and a run would overwrite "
            "them: choose another --out"
        )


def _is_record(path: Path) -> bool:
    """Whether a ``config.json`` is a run's and not, for example, that of a model."""
    try:
        return {"config", "command", "data_fingerprint"} <= set(
            json.loads(path.read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, TypeError):
        return False
