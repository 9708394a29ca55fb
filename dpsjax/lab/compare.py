"""Compare selectors on a student at equal rollouts."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from dpsjax import checks
from dpsjax.lab.contenders import Contender
from dpsjax.lab.measures import MEASURES, Run, gap_closed, summarize
from dpsjax.lab.simulate import Setting, run_keys, simulate, simulate_seeds
from dpsjax.lab.statistics import Difference, Interval, against, interval
from dpsjax.lab.students import Student, StudentParams
from dpsjax.lab.students import student as make_student
from dpsjax.selectors import Selector, uniform
from dpsjax.types import Array

SIGNIFICANT = 0.05
UNIFORM, ORACLE = "uniform", "oracle"  # always run: the two ends of the gap
GAP = {"gap_effective": "effective_ratio", "gap_held_out": "ability_held_out"}


class Comparison(NamedTuple):
    """Everything a comparison found."""

    title: str
    setting: Setting
    seeds: int
    reference: str
    runs: dict[str, Run]  # NumPy arrays with a leading seed axis
    values: dict[str, dict[str, np.ndarray]]  # name -> measure -> float64[seeds]
    seconds: dict[str, float]  # of each contender, compilation included


def compare(
    contenders: Mapping[str, Selector | Contender],
    student: Student,
    setting: Setting,
    seeds: int = 10,
    reference: str = "dps",
    title: str = "",
    on_done: Callable[[str, float], None] | None = None,
) -> Comparison:
    """Run every contender on the same seeds; uniform and the oracle are added.

    Args:
        contenders: name -> selector, or a selector with how it is used.
        student: what answers and learns.
        setting: sizes.
        seeds: runs of each contender; at least 2 for intervals.
        reference: whom the others are compared with; if it is not there, uniform.
        title: of the student, for tables and plots.
        on_done: told the name and the seconds of each contender as it ends.

    Returns:
        the comparison.

    Raises:
        TypeError: if an argument is something else.
        ValueError: if ``seeds`` is not positive.
    """
    checks.require_type(Student, "a Student", student=student)

    def run(contender: Contender) -> Run:
        return simulate_seeds(contender, student, seeds, setting)

    return compare_runs(contenders, run, setting, seeds, reference, title, on_done)


def compare_runs(
    contenders: Mapping[str, Selector | Contender],
    run: Callable[[Contender], Run],
    setting: Setting,
    seeds: int = 10,
    reference: str = "dps",
    title: str = "",
    on_done: Callable[[str, float], None] | None = None,
) -> Comparison:
    """:func:`compare` on whatever is trained, such as a policy.

    Args:
        contenders: as there.
        run: what a contender leaves on seeds 0..seeds-1: arrays with a leading seed axis.
        setting: what the runs share, to be told.
        seeds: as there.
        reference: as there.
        title: as there.
        on_done: as there.

    Returns:
        the comparison.

    Raises:
        TypeError: as there.
        ValueError: as there.
    """
    checks.require_type(str, "a text", title=title)
    checks.require_callable(run=run)
    _require_shared(setting, on_done)
    field = _field(contenders, seeds)

    def one(name: str) -> tuple[Run, float]:
        started = time.perf_counter()
        found = jax.tree.map(np.asarray, run(field[name]))
        taken = time.perf_counter() - started
        if on_done is not None:
            on_done(name, taken)
        return found, taken

    # Most of the time is XLA's compiler, which uses one core: one contender a core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = dict(zip(field, pool.map(one, field), strict=True))
    return _judged(done, title, setting, seeds, reference)


def compare_students(
    contenders: Mapping[str, Selector | Contender],
    families: Mapping[str, StudentParams],
    setting: Setting,
    seeds: int = 10,
    reference: str = "dps",
    on_done: Callable[[str, float], None] | None = None,
) -> dict[str, Comparison]:
    """:func:`compare` on several students; every contender is compiled once for all of them.

    Args:
        contenders: as there.
        families: title -> parameters of a student.
        setting: sizes.
        seeds: runs of each contender on each student.
        reference: as there.
        on_done: as there; the seconds are those of all students.

    Returns:
        title -> comparison.

    Raises:
        TypeError: as there.
        ValueError: as there, or if there is no student.
    """
    _require_shared(setting, on_done)
    checks.require_type(Mapping, "a dictionary of StudentParams", families=families)
    for family in families.values():
        checks.require_type(StudentParams, "a dictionary of StudentParams", families=family)
    if not families:
        raise ValueError("families={} must hold a student")
    field = _field(contenders, seeds)

    def one(name: str) -> dict[str, tuple[Run, float]]:
        def run(params: StudentParams, key: Array) -> Run:
            return simulate(field[name], make_student(params), key, setting)

        program = jax.jit(jax.vmap(run, in_axes=(None, 0)))
        begun, done = time.perf_counter(), {}
        for title, family in families.items():
            started = time.perf_counter()
            params = jax.tree.map(np.float32, family)
            found = jax.tree.map(np.asarray, program(params, run_keys(seeds)))
            done[title] = found, time.perf_counter() - started
        if on_done is not None:
            on_done(name, time.perf_counter() - begun)
        return done

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = dict(zip(field, pool.map(one, field), strict=True))
    return {
        title: _judged({n: of[title] for n, of in runs.items()}, title, setting, seeds, reference)
        for title in families
    }


def _require_shared(setting: Setting, on_done: Callable | None) -> None:
    checks.require_type(Setting, "a Setting", setting=setting)
    if on_done is not None:
        checks.require_callable(on_done=on_done)


def _field(contenders: Mapping[str, Selector | Contender], seeds: int) -> dict[str, Contender]:
    """The contenders between the two ends of the gap."""
    checks.require_counts(seeds=seeds)
    checks.require_type(Mapping, "a dictionary of selectors", contenders=contenders)
    field = {UNIFORM: Contender(uniform())}
    for name, contender in contenders.items():
        checks.require_type(str, "a dictionary with names for keys", contenders=name)
        if not isinstance(contender, Contender):
            checks.require_type(Selector, "a dictionary of selectors", contenders=contender)
            contender = Contender(contender)
        field[name] = contender
    field[ORACLE] = Contender(uniform(), oracle=True)
    return field


def _judged(
    done: dict[str, tuple[Run, float]], title: str, setting: Setting, seeds: int, reference: str
) -> Comparison:
    """The measures of finished runs."""
    runs = {name: run for name, (run, _) in done.items()}
    seconds = {name: taken for name, (_, taken) in done.items()}
    values = {name: summarize(run) for name, run in runs.items()}
    for mine in values.values():
        for gap, measure in GAP.items():
            ends = values[UNIFORM][measure], values[ORACLE][measure]
            mine[gap] = gap_closed(mine[measure], *ends)
    reference = reference if reference in runs else UNIFORM
    return Comparison(title, setting, seeds, reference, runs, values, seconds)


def require_measure(comparison: Comparison, measure: str) -> None:
    """Refuse what is no comparison, and measures that there are not."""
    require_comparison(comparison)
    known = [*MEASURES, *GAP]
    if not isinstance(measure, str) or measure not in known:
        raise ValueError(f"measure={measure!r} is not known: use one of {', '.join(known)}")


def require_comparison(comparison: Comparison) -> None:
    """Refuse, with a TypeError, what is no comparison."""
    checks.require_type(Comparison, "of compare or compare_students", comparison=comparison)


def means(comparison: Comparison, measure: str) -> dict[str, Interval]:
    """Mean and 95 % interval of one measure for every contender.

    Raises:
        TypeError: ``comparison`` is something else.
        ValueError: there is no such ``measure``.
    """
    require_measure(comparison, measure)
    return {name: interval(mine[measure]) for name, mine in comparison.values.items()}


def differences(comparison: Comparison, measure: str) -> dict[str, Difference]:
    """Paired differences to the reference; the oracle, which is no selector, is left out.

    Raises:
        TypeError: ``comparison`` is something else.
        ValueError: there is no such ``measure``.
    """
    require_measure(comparison, measure)
    field = {n: mine[measure] for n, mine in comparison.values.items() if n != ORACLE}
    return against(field, comparison.reference)


def ranking(comparison: Comparison, measure: str = "ability_held_out") -> list[str]:
    """Names, the highest mean first."""
    average = means(comparison, measure)
    return sorted(average, key=lambda name: -average[name].mean)
