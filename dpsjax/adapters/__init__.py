"""Selectors in other people's trainers: one small file each, imported where that trainer is.

Each replaces methods of one version of its trainer, and refuses other versions.
"""

import tempfile
from importlib import metadata
from pathlib import Path

from dpsjax.curriculum import Curriculum


def require_version(package: str, wanted: str) -> None:
    """Demand the version of a trainer that an adapter was tested against.

    Args:
        package: its name on PyPI.
        wanted: how the version must begin, such as ``1.16.``.

    Raises:
        ImportError: it is not installed, or of another version; the message says what to install.
    """
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = "not installed"
    if not found.startswith(wanted):
        fix = f"pip install '{package}=={wanted}*'"
        raise ImportError(f"this adapter was made for {package} {wanted}*, found {found}: {fix}")


def packed(curriculum: Curriculum) -> bytes:
    """A curriculum's file, for trainers that keep states and not files.

    Raises:
        OSError: there is no room for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        curriculum.save(Path(folder) / "curriculum")
        return (Path(folder) / "curriculum").read_bytes()


def unpack(curriculum: Curriculum, saved: bytes) -> None:
    """Go on from :func:`packed`.

    Raises:
        ValueError: it is damaged or of something else, as :meth:`dpsjax.Curriculum.load` says.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curriculum"
        path.write_bytes(saved)
        curriculum.load(path)
