"""The TPU compiler on a machine without a TPU, and what it says about a program."""

import importlib.util
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from dpsjax.grpo.mesh import make_mesh
from dpsjax.plan.chips import Slice
from dpsjax.plan.hlo import Program as Hlo
from dpsjax.plan.hlo import Traffic
from dpsjax.plan.job import Axes
from dpsjax.plan.programs import Program

__all__ = [
    "Compiled",
    "CompilerTimeoutError",
    "MissingCompilerError",
    "compile_program",
    "is_abandoned",
    "topology_mesh",
    "use_no_device",
]

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class MissingCompilerError(RuntimeError):
    """The TPU compiler is not installed, or cannot be used now."""


class CompilerTimeoutError(RuntimeError):
    """The compiler is not done in time, or has not answered an earlier call."""


class Compiled(NamedTuple):
    """What the compiler says of a program, per device.

    Attributes:
        arguments: bytes of its inputs.
        outputs: bytes of its results that take no input's place.
        temporary: bytes that exist while it runs.
        code: bytes of the program.
        traffic: what it moves, loops counted as often as they run; None where the compiler refused
            the program, or cannot write it down as text (some programs for v5p, with jax 0.10).
        once: its own ``flops`` and ``bytes accessed``, which count every loop once.
        seconds: of compiling.
        fits: False where the compiler found no way to fit it into the memory.
    """

    arguments: int
    outputs: int
    temporary: int
    code: int
    traffic: Traffic | None
    once: dict[str, float]
    seconds: float
    fits: bool = True

    @property
    def peak(self) -> int:
        """Bytes while it runs."""
        return self.arguments + self.outputs + self.temporary + self.code


def use_no_device() -> None:
    """Keep JAX from looking for accelerators: a plan needs none, and a TPU here stays free."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")


def topology_mesh(where: Slice, axes: Axes) -> Mesh:
    """A mesh over the devices of a slice that need not exist.

    Args:
        where: the slice.
        axes: of the mesh.

    Returns:
        The mesh; programs can be compiled for it, and cannot be run.

    Raises:
        MissingCompilerError: libtpu is not installed, or another process uses it.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise MissingCompilerError(
            "the TPU compiler is not installed: pip install 'dpsjax[plan]' brings it (libtpu, "
            "Linux on x86-64)"
        )
    # What a TPU machine would be asked; libtpu reads them when it is loaded.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", where.accelerator_type)
    use_no_device()
    try:
        topology = topologies.get_topology_desc(topology_name=where.topology, platform="tpu")
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise MissingCompilerError(
            f"the TPU compiler does not give the topology {where.topology}: {first} (one process "
            "at a time may use libtpu)"
        ) from error
    return make_mesh(*axes, topology.devices)


def compile_program(
    program: Program,
    end: float = float("inf"),
    report: Callable[[str], None] = lambda text: None,
) -> Compiled:
    """Compile a program and read what it takes.

    Args:
        program: of :func:`dpsjax.plan.programs.trace` for a mesh of :func:`topology_mesh`.
        end: time of the monotonic clock after which nobody waits for it.
        report: called every second.

    Returns:
        Its figures; ``fits`` is False where it does not fit into the chip's memory.

    Raises:
        CompilerTimeoutError: it takes longer.
        jax.errors.JaxRuntimeError: the compiler failed for another reason.
    """
    start = time.perf_counter()
    lowered = program.traced.lower(lowering_platforms=("tpu",))
    try:
        done = _within(lowered.compile, end, report)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.perf_counter() - start
        return Compiled(0, 0, refused_bytes(str(error)), 0, None, {}, seconds, fits=False)
    memory, costs = done.memory_analysis(), done.cost_analysis() or {}
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        outputs=max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0),
        temporary=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        traffic=_traffic(done),
        once={name: float(costs.get(name, 0.0)) for name in ("flops", "bytes accessed")},
        seconds=time.perf_counter() - start,
    )


_unfinished: list[threading.Thread] = []  # that somebody stopped waiting for


def is_abandoned() -> bool:
    """Whether the compiler still works on what nobody waits for.

    It cannot be stopped, so a process in which it does should end by ``os._exit``: it would take
    apart under the compiler's hands what the compiler uses.
    """
    return any(thread.is_alive() for thread in _unfinished)


def _within(run: Callable[[], Any], end: float, report: Callable[[str], None]) -> Any:
    """The result of a call, made beside the main thread, which so hears the clock and Ctrl-C."""
    if is_abandoned():
        raise CompilerTimeoutError
    answers: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def call() -> None:
        try:
            answers.put((run(), None))
        except BaseException as error:
            answers.put((None, error))

    thread, start = threading.Thread(target=call, daemon=True), time.monotonic()
    thread.start()
    while True:
        report(f"for {time.monotonic() - start:.0f} s")
        try:
            found, error = answers.get(timeout=max(min(1.0, end - time.monotonic()), 0.01))
        except queue.Empty:
            if time.monotonic() < end:
                continue
            _unfinished.append(thread)
            raise CompilerTimeoutError from None
        except KeyboardInterrupt:
            _unfinished.append(thread)
            raise
        if error is not None:
            raise error
        return found


def _traffic(done: jax.stages.Compiled) -> Traffic | None:
    try:
        text = done.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    return None if text is None else Hlo(text).total()


def refused_bytes(message: str) -> int:
    """Bytes that a refused program would have taken, out of the compiler's message; 0 if unsaid.

    >>> refused_bytes("required for HLO temporaries (20.50G) exceeds available HBM (15.75G)")
    22011707392
    """
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds", message)
    found = found or re.search(r"Used ([\d.]+)([KMGT]) of", message)
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else 0
