"""Selectors in other people's trainers: one small file each, imported where that trainer is.

Each replaces methods of one version of its trainer, and refuses other versions.
"""

from importlib import metadata


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
