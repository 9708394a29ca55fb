"""Compare selectors on a simulated student at equal rollouts, and say what was found."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dpsjax import checks
from dpsjax.lab.measures import MEASURES, gap_closed, summarize
from dpsjax.lab.simulate import Contender, Run, Setting, run_keys, simulate, simulate_seeds
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
    checks.require_type(str, "a text", title=title)
    _require_shared(setting, on_done)
    field = _field(contenders, seeds)

    def one(name: str) -> tuple[Run, float]:
        started = time.perf_counter()
        run = jax.tree.map(np.asarray, simulate_seeds(field[name], student, seeds, setting))
        taken = time.perf_counter() - started
        if on_done is not None:
            on_done(name, taken)
        return run, taken

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


def _require(comparison: Comparison, measure: str) -> None:
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
    _require(comparison, measure)
    return {name: interval(mine[measure]) for name, mine in comparison.values.items()}


def differences(comparison: Comparison, measure: str) -> dict[str, Difference]:
    """Paired differences to the reference; the oracle, which is no selector, is left out.

    Raises:
        TypeError: ``comparison`` is something else.
        ValueError: there is no such ``measure``.
    """
    _require(comparison, measure)
    field = {n: mine[measure] for n, mine in comparison.values.items() if n != ORACLE}
    return against(field, comparison.reference)


def finding(comparison: Comparison, measure: str = "ability_held_out") -> str:
    """What was found and what was not significant, in one sentence.

    Args:
        comparison: with at least two seeds, or nothing is significant.
        measure: one of :data:`dpsjax.lab.measures.MEASURES` of which more is better.

    Returns:
        the sentence.

    Raises:
        TypeError: ``comparison`` is something else.
        ValueError: there is no such ``measure``, or ``compare`` adds it and it has no heading.
    """
    _require(comparison, measure)
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} has no heading: use one of {', '.join(MEASURES)}")
    found, average = differences(comparison, measure), means(comparison, measure)
    field = [name for name in average if name != ORACLE]
    best = max(field, key=lambda name: average[name].mean)
    certain = {name: d for name, d in found.items() if d.p_corrected < SIGNIFICANT}
    better = sorted((n for n, d in certain.items() if d.mean > 0), key=lambda n: -found[n].mean)
    worse = sorted((n for n, d in certain.items() if d.mean < 0), key=lambda n: found[n].mean)
    unsure = [name for name in found if name not in certain]

    def listed(names):
        return ", ".join(f"{n} ({found[n].mean:+.3f})" for n in names) or "none"

    return (
        f"After {_rollouts(comparison):,} rollouts each, over {comparison.seeds} seeds, "
        f"{MEASURES[measure][0]} was highest with {best} ({average[best].mean:.3f}; "
        f"{comparison.reference} {average[comparison.reference].mean:.3f}, "
        f"uniform {average[UNIFORM].mean:.3f}, oracle {average[ORACLE].mean:.3f}); "
        f"significantly better than {comparison.reference}: {listed(better)}; "
        f"worse: {listed(worse)}; not significantly different: {listed(unsure)} "
        f"(paired t-tests, Holm-corrected over {len(found)} comparisons, p < {SIGNIFICANT})."
    )


def _rollouts(comparison: Comparison) -> int:
    setting = comparison.setting
    return setting.steps * setting.batch * setting.rollouts


def table(comparison: Comparison) -> Table:
    """The comparison for a terminal, best held-out ability first.

    Args:
        comparison: what to show.

    Returns:
        a rich table of 80 columns.
    """
    require_comparison(comparison)
    setting = comparison.setting
    found = differences(comparison, "ability_held_out")
    shown = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
        title=f"{comparison.title}: {setting.steps} steps of {setting.batch} x {setting.rollouts} "
        f"out of {setting.pool:,}, {comparison.seeds} seeds",
        caption="±: half of the 95 % interval; *: p < 0.05 after Holm's correction; ability: mean "
        "probability of solving a prompt; effective: share of mixed groups; gap: its share closed "
        "between uniform and oracle; Brier and accuracy: of P(partial), all prompts",
    )
    shown.add_column("selector", no_wrap=True)
    for heading in (
        "held-out\nability",
        f"- {comparison.reference}\n",
        "pool\nabil.",
        "effec-\ntive",
        "gap\n",
        "cover-\nage",
        "Brier\n",
        "accu-\nracy",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name in ranking(comparison):
        mine = {m: interval(v) for m, v in comparison.values[name].items()}
        shown.add_row(
            name,
            _with_error(mine["ability_held_out"]),
            _difference(found.get(name)),
            _number(mine["ability_pool"].mean, 3),
            _number(mine["effective_ratio"].mean, 3),
            _number(mine["gap_effective"].mean, 2),
            _number(mine["coverage"].mean, 2),
            _number(mine["brier"].mean, 3),
            _number(mine["accuracy"].mean, 2),
        )
    return shown


def ranking(comparison: Comparison, measure: str = "ability_held_out") -> list[str]:
    """Names, the highest mean first."""
    average = means(comparison, measure)
    return sorted(average, key=lambda name: -average[name].mean)


def _with_error(value: Interval) -> str:
    if math.isnan(value.low):
        return _number(value.mean, 3)
    return f"{value.mean:.3f}±{value.high - value.mean:.3f}"


def _difference(value: Difference | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:+.3f}{'*' if value.p_corrected < SIGNIFICANT else ' '}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def to_dict(comparison: Comparison) -> dict:
    """Everything but the curves of single seeds, as JSON takes it.

    Args:
        comparison: what to write.

    Returns:
        a dictionary; NaN becomes None.
    """
    require_comparison(comparison)
    selectors = {}
    for name, mine in comparison.values.items():
        sums = comparison.runs[name].calibration
        selectors[name] = {
            "measures": {m: interval(v)._asdict() for m, v in mine.items()},
            "seeds": {m: v.tolist() for m, v in mine.items()},
            "confusion": sums.confusion.sum(axis=0).tolist(),
            "reliability": sums.bins.sum(axis=0).tolist(),
            "seconds": comparison.seconds[name],
        }
    return _without_nan(
        {
            "title": comparison.title,
            "setting": vars(comparison.setting),
            "seeds": comparison.seeds,
            "reference": comparison.reference,
            "finding": finding(comparison),
            "statistics": "means with Student's 95 % intervals over seeds; differences paired by "
            "seed, two-sided t-tests, p_corrected by Holm over all selectors for each measure",
            "selectors": selectors,
            "differences": {
                m: {n: d._asdict() for n, d in differences(comparison, m).items()}
                for m, (_, more) in MEASURES.items()
                if more is not None
            },
        }
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.json`` and the pictures.

    Args:
        comparison: what to write.
        folder: made if missing.

    Returns:
        the files.
    """
    from dpsjax.lab.plots import write_plots  # matplotlib takes a second to import

    require_comparison(comparison)
    checks.require_type((str, Path), "a folder", folder=folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.json"
    path.write_text(json.dumps(to_dict(comparison), indent=1) + "\n", encoding="utf-8")
    return [path, *write_plots(comparison, folder)]
