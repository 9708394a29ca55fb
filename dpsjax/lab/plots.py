"""Pictures of a comparison, at the size of a paper's column."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
)
from dpsjax.report.figures import BLUE, GREEN, ORANGE, PINK, RED, SKY, write_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (RED, GREEN, PINK, ORANGE, SKY)
BLACK, GREY = "#222222", "#BBBBBB"
_BESIDE: dict = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "fontsize": 7}


def write_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw every picture of a comparison.

    Args:
        comparison: what to draw.
        folder: made if missing.

    Returns:
        the files.

    Raises:
        TypeError: ``comparison`` or ``folder`` is something else.
    """
    require_comparison(comparison)
    checks.require_type((str, Path), "a folder", folder=folder)
    wide, tall = (4.6, 3.0), (4.6, 1.0 + 0.17 * len(comparison.values))
    drawings: dict[str, tuple[Callable, tuple[float, float]]] = {
        "ability": (draw_ability, wide),
        "effective_ratio": (draw_effective_ratio, wide),
        "differences": (draw_differences, tall),
        "calibration": (draw_calibration, wide),
        "coverage": (draw_coverage, wide),
    }
    pictures = {
        name: (functools.partial(draw, comparison=comparison), size)
        for name, (draw, size) in drawings.items()
    }
    return write_figures(Path(folder), comparison.title, pictures)


def colors(comparison: Comparison) -> dict[str, str]:
    """Uniform black, the reference blue, the oracle grey, the best others in colour.

    Args:
        comparison: ranked by held-out ability.

    Returns:
        name -> colour; those without one are drawn faintly and not named.
    """
    require_comparison(comparison)
    fixed = {UNIFORM: BLACK, ORACLE: "#777777"}
    fixed[comparison.reference] = BLACK if comparison.reference == UNIFORM else BLUE
    others = [name for name in ranking(comparison) if name not in fixed]
    return fixed | dict(zip(others, COLORS, strict=False))


def _curves(axes: "Axes", comparison: Comparison, curve: Callable, label: str) -> None:
    """Mean over seeds with a 95 % band, against rollouts; the best are named."""
    shown = colors(comparison)
    per_step = comparison.setting.batch * comparison.setting.rollouts
    for name in reversed(ranking(comparison)):
        seeds = curve(comparison.runs[name])
        rollouts = per_step * np.arange(1, seeds.shape[1] + 1)
        mean, color = seeds.mean(axis=0), shown.get(name, GREY)
        axes.plot(
            rollouts,
            mean,
            color=color,
            linestyle="--" if name == ORACLE else "-",
            linewidth=1.4 if name in shown else 0.6,
            label=name if name in shown else None,
            zorder=3 if name in shown else 1,
        )
        if name in shown and len(seeds) > 1:
            half = 1.96 * seeds.std(axis=0, ddof=1) / np.sqrt(len(seeds))
            axes.fill_between(rollouts, mean - half, mean + half, color=color, alpha=0.15, lw=0)
    axes.set(xlabel="rollouts", ylabel=label, xlim=(0, None))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7
    )


def draw_ability(axes: "Axes", comparison: Comparison) -> None:
    """Mean true solve probability of held-out prompts."""
    _curves(axes, comparison, lambda run: run.steps.ability_held_out, "held-out ability")


def draw_effective_ratio(axes: "Axes", comparison: Comparison) -> None:
    """Share of rolled out groups with both passes and failures, smoothed over 10 steps."""

    def ratio(run):
        share = run.steps.effective / np.maximum(run.steps.groups, 1)
        width = min(10, share.shape[1])
        total = np.cumsum(np.pad(share, ((0, 0), (1, 0))), axis=1)
        end = np.arange(1, share.shape[1] + 1)
        begin = np.maximum(end - width, 0)
        return (total[:, end] - total[:, begin]) / (end - begin)

    _curves(axes, comparison, ratio, "effective ratio")
    axes.set_ylim(0, 1)


def draw_differences(axes: "Axes", comparison: Comparison) -> None:
    """Paired differences of held-out ability with 95 % intervals; filled if significant."""
    found = differences(comparison, "ability_held_out")
    order = sorted(found, key=lambda name: found[name].mean)
    for place, name in enumerate(order):
        value = found[name]
        certain = value.p_corrected < SIGNIFICANT
        color = GREY if not certain else (COLORS[1] if value.mean > 0 else COLORS[0])
        axes.plot([value.low, value.high], [place, place], color=color, linewidth=1.6)
        axes.plot(
            value.mean,
            place,
            "o",
            color=color,
            markersize=4.5,
            markerfacecolor=color if certain else "white",
        )
    axes.axvline(0, color=BLUE, linewidth=1)
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel(f"held-out ability minus that of {comparison.reference}")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)


def draw_calibration(axes: "Axes", comparison: Comparison) -> None:
    """Predicted P(partial) against the true probability, over all prompts and steps."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    shown = colors(comparison)
    brier = means(comparison, "brier")
    for name in ranking(comparison):
        count, predicted, true = comparison.runs[name].calibration.bins.sum(axis=0)
        kept = count > 1e-4 * max(count.sum(), 1)
        if not kept.any():
            continue
        axes.plot(
            predicted[kept] / count[kept],
            true[kept] / count[kept],
            "o-",
            markersize=3,
            color=shown.get(name, GREY),
            linewidth=1.2 if name in shown else 0.6,
            zorder=3 if name in shown else 1,
            label=f"{name} ({brier[name].mean:.3f})" if name in shown else None,
        )
    axes.set(
        xlabel="predicted P(partial), all prompts",
        ylabel="true P(partial)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="Brier score", **_BESIDE)


def draw_coverage(axes: "Axes", comparison: Comparison) -> None:
    """Coverage of the pool, effective ratio, and held-out ability as colour."""
    names = ranking(comparison)
    measured = {
        m: means(comparison, m) for m in ("coverage", "effective_ratio", "ability_held_out")
    }
    x, y, c = ([measured[m][name].mean for name in names] for m in measured)
    points = axes.scatter(x, y, c=c, cmap="viridis", s=34, zorder=3, edgecolor="white", lw=0.5)
    named, labelled = colors(comparison), []
    wide, high = 0.2 * max(np.ptp(x), 1e-3), 0.06 * max(np.ptp(y), 1e-3)
    for name, across, up in zip(names, x, y, strict=True):
        if name in named:  # labels of points that lie together go below one another
            near = sum(abs(across - a) < wide and abs(up - b) < high for a, b in labelled)
            labelled.append((across, up))
            left = across > (min(x) + max(x)) / 2  # then there is more room on the left
            axes.annotate(
                name,
                (across, up),
                (-6 if left else 6, 1 - 8 * near),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=6.5,
            )
    axes.figure.colorbar(points, ax=axes, label="held-out ability")
    axes.set(xlabel="coverage of the pool", ylabel="effective ratio")
    axes.margins(0.12)
