"""Checksums that tell a whole checkpoint from a damaged one."""

import hashlib
import json
import os
from pathlib import Path

SEAL = "SHA256.json"

# Orbax touches these after the seal; they hold times and type names, no values.
_NOT_SEALED = (SEAL, "_CHECKPOINT_METADATA", "commit_success.txt")
_BLOCK = 1 << 20


def write_seal(folder: Path) -> None:
    """Write the checksums of all files of a folder into it, and flush every file to the disk.

    Args:
        folder: nothing in it may change afterwards.

    Raises:
        OSError: a file cannot be read or flushed, or the seal not be written.
    """
    sums = _checksums(folder, flush=True)
    partial = folder / f"{SEAL}.partial"
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({"sha256": sums}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / SEAL)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder.

    Args:
        folder: of :func:`write_seal`.

    Returns:
        None if every file is there, unchanged; otherwise a sentence that names the first that is
        not.
    """
    try:
        text = (folder / SEAL).read_text(encoding="utf-8")
        sealed = json.loads(text)["sha256"]
        found = _checksums(folder)
    except FileNotFoundError:
        return f"it has no {SEAL}, so dpsjax did not write it to the end"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its checksums cannot be read ({error})"
    if not isinstance(sealed, dict) or not sealed:
        return f"its {SEAL} lists no files"
    for name in sorted(sealed):
        if name not in found:
            return f"the file {name} is missing"
        if found[name] != sealed[name]:
            return f"the file {name} is not what was written (its SHA-256 differs)"
    extra = sorted(set(found) - set(sealed))
    return f"the file {extra[0]} does not belong to it" if extra else None


def _checksums(folder: Path, flush: bool = False) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by path relative to it."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in _NOT_SEALED or not path.is_file():
            continue
        total = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                total.update(block)
            if flush:
                os.fsync(stream.fileno())
        sums[name] = total.hexdigest()
    return sums
