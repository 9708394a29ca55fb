"""Compilation: fast and small on a CPU, and kept on disk, so that a second run starts at once."""

import ctypes
import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax
from jax.sharding import AbstractMesh, Mesh

AnyMesh = Mesh | AbstractMesh  # devices that are here, or only a shape of them

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG = 0.3  # seconds of a compilation that leaves memory worth returning
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
    if _VARIABLE in environment:
        return
    try:
        folder = cache_folder(environment)
    except RuntimeError:  # nobody's home: the cache is a comfort, and a run does without
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def compiler_options(mesh: AnyMesh) -> dict[str, int | bool] | None:
    """What XLA is told about a program of a run.

    On a CPU LLVM optimizes at its level 1 instead of 3, and elementwise kernels come from XLA's
    older emitter, which holds one compiler context instead of one for each kernel. Compilation
    takes a third less time and, for the update of a small model, 250 MB less memory; programs are
    as fast within 3 %, for most of their time is in matrix kernels that nobody compiles. Other
    compilers have their defaults. Such options come and go (jax 0.12 has no older emitter), so XLA
    is asked first, and what it does not know is left out.

    Args:
        mesh: the devices, or none in particular, which has the defaults too.

    Returns:
        ``compiler_options`` of ``jax.jit``.
    """
    if isinstance(mesh, AbstractMesh) or mesh.devices.flat[0].platform != "cpu":
        return None
    wanted = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
    return {name: value for name, value in wanted.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: int | bool) -> bool:
    """Whether this XLA takes an option, told by compiling next to nothing with it."""
    program = jax.jit(lambda: 0, compiler_options={name: value})
    try:
        program.lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@functools.cache  # one listener, however many runs a process makes
def return_freed_memory() -> None:
    """Give the memory that a compiler freed back to the system, after each long compilation.

    The compiler's threads allocate from arenas that glibc keeps once they are free: hundreds of
    megabytes, on top of which the next compilation takes its own. Nothing happens with another
    C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim = ctypes.CDLL(None).malloc_trim

    def listen(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and duration_secs > _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(listen)


def _kind_of_host() -> str:
    """A name that hosts with the same instructions share."""
    text = platform.machine() + platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
