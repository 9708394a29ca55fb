"""One plan: figures of every program of a step, compiled or estimated."""

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
from dpsjax.plan.estimate import estimate
from dpsjax.plan.hlo import Traffic
from dpsjax.plan.programs import Resident, program_flops, programs, resident
from dpsjax.plan.setting import Job, Layout

__all__ = ["Figures", "Plan", "batch_bytes", "estimated_plan", "make_plan"]

MEMORY_COMPILED = "memory compiled, seconds estimated"


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
        job: what is trained.
        where: the slice.
        layout: how the job lies on it.
        resident: bytes that stay on each device.
        programs: figures by program.
        saving: DPS against DS.
    """

    job: Job
    where: Slice
    layout: Layout
    resident: Resident
    programs: dict[str, Figures]
    saving: Saving

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
        """Part of a step that selection takes."""
        return self.programs["selection"].seconds.least / self.step_seconds


def _figures(
    job: Job, where: Slice, layout: Layout, efficiency: Efficiency
) -> tuple[Resident, dict[str, Figures]]:
    """Residents, and every program estimated."""
    stays = resident(job, layout)
    flops = program_flops(job, layout)
    found = {}
    for name, guess in estimate(job, layout).items():
        seconds = program_seconds(flops[name], guess.traffic, where.chip, efficiency)
        peak = sum(stays) + batch_bytes(job, layout) + guess.temporary
        found[name] = Figures(
            "estimated", guess.temporary, peak, flops[name], guess.traffic, seconds, 0.0, {}
        )
    return stays, found


def batch_bytes(job: Job, layout: Layout) -> float:
    """Tokens, masks and log-probabilities of a batch of rollouts."""
    rows = job.prompts / layout.ways
    return rows * (job.group * job.response_len * 9 + job.prompt_len * 5)


def estimated_plan(
    job: Job,
    where: Slice,
    layout: Layout,
    efficiency: Efficiency = EFFICIENCY,
    comparison: Comparison = COMPARISON,
) -> Plan:
    """A plan from shapes alone.

    Args:
        job: what is trained.
        where: the slice.
        layout: how the job lies on it.
        efficiency: of the cost model.
        comparison: with DS.

    Returns:
        The plan.

    Raises:
        ValueError: the layout cannot divide the job.
    """
    layout.check(job)
    stays, found = _figures(job, where, layout, efficiency)
    gain = saving({name: figures.seconds.least for name, figures in found.items()}, comparison)
    return Plan(job, where, layout, stays, found, gain)


def make_plan(
    job: Job,
    where: Slice,
    layout: Layout,
    efficiency: Efficiency = EFFICIENCY,
    comparison: Comparison = COMPARISON,
    report: Callable[[str], None] = lambda name: None,
) -> Plan:
    """A plan with every program compiled by the TPU compiler.

    Args:
        job: what is trained.
        where: the slice.
        layout: how the job lies on it.
        efficiency: of the cost model.
        comparison: with DS.
        report: called with the name of each program before it is compiled.

    Returns:
        The plan.

    Raises:
        ValueError: the layout cannot divide the job.
        MissingCompilerError: there is no TPU compiler.
    """
    guess = estimated_plan(job, where, layout, efficiency, comparison)
    mesh = compiler.topology_mesh(where, layout)
    found = {}
    for name, program in programs(job, layout, mesh).items():
        report(name)
        done = compiler.compile_program(program, mesh)
        found[name] = _compiled_figures(name, done, guess, efficiency)
    gain = saving({name: figures.seconds.least for name, figures in found.items()}, comparison)
    return guess._replace(programs=found, saving=gain)


def _compiled_figures(
    name: str, done: compiler.Compiled, guess: Plan, efficiency: Efficiency
) -> Figures:
    """Figures of a compiled program; where the compiler refused, the estimate fills the gaps."""
    old, stays = guess.programs[name], guess.resident
    if not done.fits:
        temporary = max(float(done.temporary), old.temporary)
        peak = old.peak - old.temporary + temporary
        return old._replace(
            source="refused", temporary=temporary, peak=peak, compile_seconds=done.seconds
        )
    # what the other programs own stays on the device too
    others = {
        "selection": stays.parameters + stays.optimizer,
        "generation": stays.optimizer + stays.pool,
        "update": stays.pool,
    }[name]
    traffic = old.traffic if done.traffic is None else done.traffic
    return Figures(
        source="compiled" if done.traffic is not None else MEMORY_COMPILED,
        temporary=float(done.temporary),
        peak=float(done.peak + others),
        flops=old.flops,
        traffic=traffic,
        seconds=program_seconds(old.flops, traffic, guess.where.chip, efficiency),
        compile_seconds=done.seconds,
        once=done.once,
    )
