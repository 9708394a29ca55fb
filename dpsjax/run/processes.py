"""Several processes that run one program: how they find each other, agree, and end together.

Every process makes the same calls in the same order. What only one of them should do (files that
are not arrays, messages) is done by the first, and :func:`from_first` tells the others.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclass(frozen=True)
class DistributedConfig:
    """How the processes of one run find each other; not part of what the run computes."""

    hosts: Literal["auto", "one", "several"] = "auto"
    """One process, or several that JAX finds (TPU slices, SLURM, Open MPI, Kubernetes). auto:
    several where SLURM, Open MPI, a TPU slice's variables or a coordinator say so."""
    coordinator: str | None = None
    """HOST:PORT of the first process, where JAX cannot find it; else JAX_COORDINATOR_ADDRESS."""
    processes: int | None = None
    """How many processes there are; else JAX_NUM_PROCESSES."""
    process: int | None = None
    """Which one this is, from 0; else JAX_PROCESS_ID."""
    connect_seconds: int = 300
    """How long to wait for the others at the start."""
    lost_seconds: int = 60
    """A process that is silent for so long is lost, and the others end."""

    def __post_init__(self):
        for name in ("connect_seconds", "lost_seconds"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name}={vars(self)[name]!r} must be at least 1")
        count, number = self.processes, self.process
        if count is not None and count < 1:
            raise ValueError(f"processes={count!r} must be at least 1")
        if number is not None and not 0 <= number < (count or number + 1):
            raise ValueError(f"process={number!r} must be from 0 to processes - 1")
        place = self.coordinator
        if place is not None and not place.rpartition(":")[2].isdigit():
            raise ValueError(f"coordinator={place!r} must be HOST:PORT")


def connect(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Join the other processes of this run, if there are any. Call it before JAX is used.

    Args:
        config: the settings; what they leave open is read from ``environment``, then found by JAX.
        environment: variables of the process.

    Raises:
        ValueError: there are others, and they cannot be found.
    """
    config = _completed(config, environment)
    several = config.hosts == "several" or config.coordinator is not None
    if config.hosts == "one" or not (several or _launched_together(environment)):
        return
    explicit = None not in (config.coordinator, config.processes, config.process)
    # On CPUs a collective across processes needs this; the other platforms do not read it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # SIGTERM is handled by dpsjax.run.signals.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.processes,
            config.process,
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=config.connect_seconds,
            heartbeat_timeout_seconds=config.lost_seconds,
            shutdown_timeout_seconds=config.lost_seconds,
        )
    # JAX and its cluster plugins raise errors of many kinds here.
    except Exception as error:
        raise ValueError(
            f"the other processes cannot be found ({_first_line(error)}); give every process "
            "--coordinator HOST:PORT --processes N --process I, or --hosts one to run alone"
        ) from error


def _completed(config: DistributedConfig, environment: Mapping[str, str]) -> DistributedConfig:
    """The settings, with what the environment adds to them."""

    def number(name: str, given: int | None) -> int | None:
        text = environment.get(name)
        if given is not None or text is None:
            return given
        if not text.isdigit():
            raise ValueError(f"{name}={text!r} must be a number")
        return int(text)

    return DistributedConfig(
        hosts=config.hosts,
        coordinator=config.coordinator or environment.get("JAX_COORDINATOR_ADDRESS"),
        processes=number("JAX_NUM_PROCESSES", config.processes),
        process=number("JAX_PROCESS_ID", config.process),
        connect_seconds=config.connect_seconds,
        lost_seconds=config.lost_seconds,
    )


def _launched_together(environment: Mapping[str, str]) -> bool:
    """Whether a launcher says that there are other processes."""
    slurm = "SLURM_STEP_NODELIST" in environment and environment.get("SLURM_NTASKS", "1") != "1"
    open_mpi = environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1"
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    slice_of_tpus = "," in hosts and " " not in hosts  # libtpu may have put a sentence there
    return slurm or open_mpi or slice_of_tpus


def require_connected() -> None:
    """Refuse to run beside processes that were not joined.

    Raises:
        ValueError: the devices are those of a slice of TPUs, and ``connect`` was told nothing.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ValueError(
            f"these devices belong to {jax.process_count()} hosts: give all of them --hosts several"
        )


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return jax.process_index() == 0


def gather_text(text: str) -> list[str]:
    """The texts of all processes, in their order; all must call this together."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.array([own.size], np.int32)))
    padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
    padded[: own.size] = own
    rows = np.reshape(multihost_utils.process_allgather(padded), (len(sizes), -1))
    return [
        row[:size].astype(np.uint8).tobytes().decode()
        for row, size in zip(rows, sizes, strict=True)
    ]


def from_first(function: Callable[[], Any]) -> Any:
    """Let the first process do something, and give all of them the result.

    Args:
        function: called in the first process only; returns a JSON-serialisable value.

    Returns:
        its value, as JSON gives it back where there are several processes.

    Raises:
        ValueError: of ``function``, in every process.
        OSError: likewise.
    """
    if jax.process_count() == 1:
        return function()
    answer: dict[str, Any] = {}
    if is_first():
        try:
            answer = {"value": function()}
        except ValueError as error:
            answer = {"ValueError": str(error)}
        except OSError as error:
            answer = {"OSError": str(error), "errno": error.errno}
    answer = json.loads(gather_text(json.dumps(answer))[0])
    if "ValueError" in answer:
        raise ValueError(answer["ValueError"])
    if "OSError" in answer:
        failure = OSError(answer["OSError"])
        failure.errno = answer["errno"]  # given to OSError, it would stand in the text twice
        raise failure
    return answer["value"]


def require_same(values: Mapping[str, Any], when: str) -> None:
    """Stop unless all processes hold the same values; all must call this together.

    Args:
        values: JSON-serialisable, flat or nested.
        when: for the message, for example ``"at the start"``.

    Raises:
        ValueError: they differ; the message names values and processes.

    >>> require_same({"seed": 1}, "at the start")
    """
    texts = gather_text(json.dumps(values, sort_keys=True, default=str))
    if len(set(texts)) == 1:
        return
    found = [_flat(json.loads(text)) for text in texts]
    lines = []
    for name in sorted({name for flat in found for name in flat}):
        each = [repr(flat.get(name, "nothing"))[:80] for flat in found]
        if len(set(each)) > 1:
            lines.append(f"{name}: " + ", ".join(f"{v} in process {p}" for p, v in enumerate(each)))
    raise ValueError(
        f"{when}, the processes of this run differ:\n  " + "\n  ".join(lines) + "\n"
        "give every host the same command, the same files and the same versions"
    )


def _flat(values: Any, before: str = "") -> dict[str, Any]:
    """Nested values under dotted names."""
    if not isinstance(values, dict):
        return {before.removesuffix("."): values}
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.")
    return flat


def run_together(function: Callable[[], int]) -> int:
    """Run a command so that none of several processes waits for one that has failed.

    A process that ended in the usual way would first wait for the others, who wait for it; so a
    failure ends the process at once, and the others notice and end too.

    Args:
        function: returns an exit code.

    Returns:
        the exit code; does not return a failure where there are several processes.
    """
    try:
        code = function()
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        _explain(error)
        code = 1
    if jax.process_count() > 1 and code != 0:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _explain(error: BaseException) -> None:
    number, count = jax.process_index(), jax.process_count()
    if isinstance(error, jax.errors.JaxRuntimeError):
        text = (
            f"dpsjax: process {number} of {count} ends: a computation shared with the other "
            f"processes failed ({_first_line(error)}). Most likely another process was lost: see "
            "its output. The same command, on every host, continues from the last checkpoint"
        )
        print(text, file=sys.stderr)
        return
    traceback.print_exception(error)
    print(f"dpsjax: process {number} of {count} failed; the others end too", file=sys.stderr)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return text.splitlines()[0][:300]
