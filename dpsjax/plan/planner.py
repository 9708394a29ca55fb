"""One plan: figures of every program of a step, compiled or estimated."""

import time
from collections.abc import Callable
from typing import NamedTuple

from dpsjax.plan import compiler
from dpsjax.plan.chips import Slice
from dpsjax.plan.cost import (
    COMPARISON,
    EFFICIENCY,
    Comparison,
    Efficiency,
    Saving,
    Seconds,
    program_seconds,
    saving,
)
from dpsjax.plan.estimate import batch_bytes, estimate
from dpsjax.plan.hlo import Traffic
from dpsjax.plan.job import Job
from dpsjax.plan.programs import Program, Resident, trace

__all__ = ["Figures", "Plan", "estimated_plan", "make_plan"]

MEMORY_COMPILED = "memory compiled, seconds estimated"
# A program that should need so many times the chip's memory is not given to the compiler, which
# may look for hours for a way to fit it.
HOPELESS = 2.0


class Figures(NamedTuple):
    """One program on one device.

    Attributes:
        source: ``compiled``, ``estimated``, ``refused`` (the compiler found that it cannot fit) or
            :data:`MEMORY_COMPILED` (its program cannot be read as text, so traffic is estimated).
        temporary: bytes that exist while it runs, beside its arguments.
        peak: bytes on the device while it runs, all residents included.
        flops: operations, loops as often as they run.
        traffic: bytes moved.
        seconds: predicted by the cost model.
        compile_seconds: 0 where nothing was compiled.
        once: ``flops`` and ``bytes accessed`` as XLA reports them, every loop counted once.
    """

    source: str
    temporary: float
    peak: float
    flops: float
    traffic: Traffic
    seconds: Seconds
    compile_seconds: float
    once: dict[str, float]


class Plan(NamedTuple):
    """All of it.

    Attributes:
        job: what is trained, and how it lies on the devices.
        where: the slice.
        resident: bytes that stay on each device.
        programs: figures by stage.
        saving: DPS against DS; None where the step is not DPS's.
        notes: sentences about programs that were not compiled.
    """

    job: Job
    where: Slice
    resident: Resident
    programs: dict[str, Figures]
    saving: Saving | None
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> float:
        """The most bytes that any program needs on a device."""
        return max(figures.peak for figures in self.programs.values())

    @property
    def fits(self) -> bool:
        """Whether every program fits."""
        refused = any(figures.source == "refused" for figures in self.programs.values())
        return not refused and self.peak <= self.where.chip.usable_bytes

    @property
    def step_seconds(self) -> float:
        """Predicted seconds of a step, each program fully overlapped with itself."""
        return sum(figures.seconds.least for figures in self.programs.values())

    @property
    def selection_share(self) -> float:
        """Part of a step that selection takes, and the belief's learning."""
        small = (self.programs[name].seconds.least for name in ("select", "offer"))
        return sum(small) / self.step_seconds


def estimated_plan(
    job: Job,
    where: Slice,
    efficiency: Efficiency = EFFICIENCY,
    comparison: Comparison | None = COMPARISON,
) -> Plan:
    """A plan from shapes alone.

    Args:
        job: the step on its mesh.
        where: the slice.
        efficiency: of the cost model.
        comparison: with DS; None for none.

    Returns:
        The plan.
    """
    return _estimated(job, where, *trace(job), efficiency, comparison)


def _estimated(
    job: Job,
    where: Slice,
    traced: dict[str, Program],
    stays: Resident,
    efficiency: Efficiency,
    comparison: Comparison | None,
) -> Plan:
    found, guesses = {}, estimate(job)
    for name, program in traced.items():
        guess = guesses[name]
        seconds = program_seconds(program.flops, guess.traffic, where.chip, efficiency)
        peak = sum(stays) + batch_bytes(job) + guess.temporary
        found[name] = Figures(
            "estimated", guess.temporary, peak, program.flops, guess.traffic, seconds, 0.0, {}
        )
    return _compared(Plan(job, where, stays, found, None), comparison)


def make_plan(
    job: Job,
    where: Slice,
    efficiency: Efficiency = EFFICIENCY,
    comparison: Comparison | None = COMPARISON,
    report: Callable[[str], None] = lambda line: None,
    minutes: float = float("inf"),
) -> Plan:
    """A plan with every program compiled by the TPU compiler.

    Args:
        job: the step on its mesh.
        where: the slice.
        efficiency: of the cost model.
        comparison: with DS; None for none.
        report: called about every second with what is being done.
        minutes: after which the compiler is no longer waited for: what is not compiled by then is
            estimated, and a note says so. See :func:`dpsjax.plan.compiler.is_abandoned`.

    Returns:
        The plan.

    Raises:
        MissingCompilerError: there is no TPU compiler.
    """
    end = time.monotonic() + 60 * minutes
    mesh = compiler.topology_mesh(where, job.axes)
    report("tracing")
    traced, stays = trace(job, mesh)
    guess = _estimated(job, where, traced, stays, efficiency, comparison)
    found, notes = {}, []
    for name, program in traced.items():
        old = guess.programs[name]
        if old.peak > HOPELESS * where.chip.usable_bytes:
            found[name] = old
            notes.append(f"{name}: not compiled, for by the estimate it is far from fitting")
            continue
        try:
            done = compiler.compile_program(
                program, end, lambda text, n=name: report(f"{n} {text}")
            )
        except compiler.CompilerTimeoutError:
            found[name] = old
            notes.append(f"{name}: not compiled within {minutes:g} minutes, estimated instead")
            continue
        found[name] = _compiled_figures(program, done, old, guess, efficiency)
    return _compared(guess._replace(programs=found, notes=tuple(notes)), comparison)


def _compared(plan: Plan, comparison: Comparison | None) -> Plan:
    """With its comparison with DS."""
    if comparison is None:
        return plan
    seconds = {name: figures.seconds.least for name, figures in plan.programs.items()}
    return plan._replace(saving=saving(seconds, comparison))


def _compiled_figures(
    program: Program, done: compiler.Compiled, old: Figures, guess: Plan, efficiency: Efficiency
) -> Figures:
    """Figures of a compiled program; where the compiler refused, the estimate fills the gaps."""
    if not done.fits:
        temporary = max(float(done.temporary), old.temporary)
        peak = old.peak - old.temporary + temporary
        return old._replace(
            source="refused", temporary=temporary, peak=peak, compile_seconds=done.seconds
        )
    traffic = old.traffic if done.traffic is None else done.traffic
    return Figures(
        source="compiled" if done.traffic is not None else MEMORY_COMPILED,
        temporary=float(done.temporary),
        # what the other programs own stays on the device too
        peak=float(done.peak + sum(guess.resident) - program.held),
        flops=old.flops,
        traffic=traffic,
        seconds=program_seconds(old.flops, traffic, guess.where.chip, efficiency),
        compile_seconds=done.seconds,
        once=done.once,
    )
