"""A persistent compilation cache by default: the second run of the same settings starts at once."""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where compiled programs are kept unless ``JAX_COMPILATION_CACHE_DIR`` says otherwise.

    Programs for a CPU may use all of its instructions, and a home folder may be shared by hosts
    with others, so each kind of host has a folder of its own.

    Args:
        environment: variables of the process.

    Returns:
        a folder below ``$XDG_CACHE_HOME/dpsjax/xla``, or ``~/.cache/dpsjax/xla``.
    """
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "dpsjax" / "xla" / _kind_of_host()


def use_compilation_cache(environment: Mapping[str, str] = os.environ) -> None:
    """Keep compiled programs on disk; call it before anything is compiled.

    JAX's own variables decide where they are set: ``JAX_COMPILATION_CACHE_DIR`` names another
    folder, ``JAX_ENABLE_COMPILATION_CACHE=false`` turns the cache off.

    Args:
        environment: variables of the process.
    """
    if _VARIABLE not in environment:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder(environment)))


def _kind_of_host() -> str:
    """A name that hosts with the same instructions share."""
    text = platform.machine() + platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
