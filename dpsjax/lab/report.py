"""What a comparison found: a table for the terminal, a sentence, JSON and pictures."""

import json
import math
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dpsjax import checks
from dpsjax.lab.compare import (
    ORACLE,
    SIGNIFICANT,
    UNIFORM,
    Comparison,
    differences,
    means,
    ranking,
    require_comparison,
    require_measure,
)
from dpsjax.lab.measures import MEASURES
from dpsjax.lab.plots import write_plots
from dpsjax.lab.statistics import Difference, Interval, interval


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
    require_measure(comparison, measure)
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
    require_comparison(comparison)
    checks.require_type((str, Path), "a folder", folder=folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.json"
    path.write_text(json.dumps(to_dict(comparison), indent=1) + "\n", encoding="utf-8")
    return [path, *write_plots(comparison, folder)]
