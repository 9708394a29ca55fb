"""Pictures of a run, at the size of a paper's column: learning, selection and prediction."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsjax.loop.metrics import Record, partial_predictions
from dpsjax.report.figures import BLUE, GREEN, ORANGE, RED, write_figures
from dpsjax.report.prompt_table import Visit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#8C8C8C"
UNSEEN = "#E8E8E8"
_STATE_NAMES = {2: ("agreed", "mixed"), 3: ("unsolved", "partial", "solved")}


def write_plots(
    folder: Path, records: Sequence[Record], title: str, num_prompts: int
) -> list[Path]:
    """Draw every picture of a run.

    Args:
        folder: made if missing.
        records: of all steps, at least one.
        title: written above each picture.
        num_prompts: N, of the pool.

    Returns:
        the files.
    """
    drawings: dict[str, Callable] = {
        "accuracy": draw_accuracy,
        "effective_ratio": draw_effective_ratio,
        "occupancy_observed": functools.partial(draw_observed, num_prompts=num_prompts),
        "occupancy_predicted": draw_predicted,
        "confusion": draw_confusion,
        "calibration": draw_calibration,
    }
    size = (3.6, 2.7)
    pictures = {
        name: (functools.partial(draw, records=records), size) for name, draw in drawings.items()
    }
    return write_figures(folder, title, pictures)


def smooth(values: Sequence[float], width: int) -> np.ndarray:
    """Centred moving average; the window shrinks at the ends.

    Args:
        values: one a step.
        width: of the window, odd.

    Returns:
        as many values.

    >>> smooth([0.0, 3.0, 0.0], 3).tolist()
    [1.5, 1.0, 1.5]
    """
    array, half = np.asarray(values, float), width // 2
    total = np.concatenate([[0.0], np.cumsum(array)])
    place = np.arange(array.size)
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, array.size)
    return (total[high] - total[low]) / (high - low)


def write_prompt_picture(
    path: Path,
    title: str,
    named: Mapping[str, Sequence[int]],
    visits: Sequence[Sequence[Visit]],
    steps: int,
) -> None:
    """Draw when some prompts were visited, and how well they were answered.

    Args:
        path: the PNG.
        title: written above.
        named: prompt ids under headings.
        visits: of every prompt.
        steps: of the run.
    """
    rows = [(kind, prompt) for kind, prompts in named.items() for prompt in prompts]

    def draw(axes: "Axes") -> None:
        seen = [(v.step, place, v.rate) for place, (_, n) in enumerate(rows) for v in visits[n]]
        x, y, rate = zip(*seen, strict=True) if seen else ((), (), ())
        look: dict = {"s": 18, "edgecolors": "#666666", "linewidths": 0.3, "zorder": 2}
        dots = axes.scatter(x, y, c=rate, cmap="viridis", vmin=0, vmax=1, **look)
        axes.set_yticks(range(len(rows)), [f"{kind} {n}" for kind, n in rows], fontsize=7)
        axes.set(xlabel="step", xlim=(0, max(steps, 2) + 0.5), ylim=(len(rows) - 0.4, -0.6))
        axes.figure.colorbar(dots, ax=axes, label="share right", aspect=30)

    size = (5.2, 1.0 + 0.16 * max(len(rows), 4))
    write_figures(path.parent, title, {path.stem: (draw, size)})


def _window(records: Sequence[Record]) -> int:
    """About a tenth of the run, odd."""
    return 2 * (len(records) // 20) + 1


def held_out_curve(
    records: Sequence[Record], measure: str = "accuracy"
) -> tuple[list[int], list[float]]:
    """Rollouts spent and held-out accuracy at every evaluation, the first before any rollout.

    Args:
        records: of all steps.
        measure: ``"accuracy"`` of sampled responses, or ``"greedy"`` of the likeliest.

    Returns:
        ``(rollouts, accuracy)``.
    """
    first, name = records[0].get(f"held_out_before_{measure}"), f"held_out_{measure}"
    points = [] if first is None else [(0, first)]
    points += [(r["rollouts"], r[name]) for r in records if name in r]
    return [x for x, _ in points], [y for _, y in points]


def draw_accuracy(axes: "Axes", records: Sequence[Record]) -> None:
    """Held-out accuracy, and that of the training batch, against rollouts.

    What no temperature gives the policy before training, it learned: what is above the line.
    """
    rollouts = [record["rollouts"] for record in records]
    batch = smooth([record["accuracy"] for record in records], _window(records))
    axes.plot(rollouts, batch, color=GREY, linewidth=1.0, label="training batch (selected)")
    axes.plot(*held_out_curve(records), "o-", color=BLUE, markersize=3.5, label="held-out, sampled")
    greedy = held_out_curve(records, "greedy")
    axes.plot(*greedy, "o--", color=ORANGE, markersize=3.5, label="held-out, greedy")
    tried = records[0].get("held_out_before_by_temperature", {}).values()
    if before := [*tried, *held_out_curve(records)[1][:1], *greedy[1][:1]]:
        label = "before, best temperature"
        axes.axhline(max(before), color="#222222", linewidth=0.8, linestyle=":", label=label)
    axes.set(xlabel="rollouts", ylabel="accuracy", ylim=(0, 1), xlim=(0, None))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    axes.legend(loc="best", fontsize=8)


def draw_effective_ratio(axes: "Axes", records: Sequence[Record]) -> None:
    """Share of groups with mixed outcomes; the others teach nothing."""
    steps = [record["step"] for record in records]
    count = [max(len(record["groups"]["prompt"]), 1) for record in records]
    series = (
        ("mixed (effective)", GREEN, [record["effective_ratio"] for record in records]),
        ("all wrong", RED, [r["all_wrong"] / n for r, n in zip(records, count, strict=True)]),
        ("all right", ORANGE, [r["all_right"] / n for r, n in zip(records, count, strict=True)]),
    )
    for label, color, values in series:
        axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.35)
        axes.plot(steps, smooth(values, _window(records)), color=color, label=label)
    axes.set(xlabel="step", ylabel="share of prompts", ylim=(0, 1), xlim=(1, max(steps[-1], 2)))
    axes.legend(loc="best", fontsize=8)


def draw_observed(axes: "Axes", records: Sequence[Record], num_prompts: int) -> None:
    """The state in which each prompt of the pool was last seen, as shares of the pool."""
    size = len(records[0]["occupancy"])
    names = ("never visited", *_state_names(size))
    shares = observed_occupancy(records, num_prompts)
    _draw_bands(axes, records, shares, names, [UNSEEN, *_state_colors(size)])
    axes.set_ylabel("share of the pool, last seen")


def observed_occupancy(records: Sequence[Record], num_prompts: int) -> np.ndarray:
    """Share of the pool by the state in which a prompt was last seen, after each step.

    Args:
        records: of all steps.
        num_prompts: N.

    Returns:
        float[1 + K, steps]; row 0 are the prompts never visited.
    """
    last = np.zeros(num_prompts, int)
    shares = []
    for record in records:
        prompt, state = np.array(record["groups"]["prompt"]), np.array(record["groups"]["state"])
        last[prompt[state >= 0]] = 1 + state[state >= 0]
        shares.append(np.bincount(last, minlength=1 + len(record["occupancy"])) / num_prompts)
    return np.array(shares).T


def draw_predicted(axes: "Axes", records: Sequence[Record]) -> None:
    """The mean predicted probability of each solve state over the whole pool."""
    shares = np.array([record["occupancy"] for record in records]).T
    _draw_bands(
        axes, records, shares, _state_names(shares.shape[0]), _state_colors(shares.shape[0])
    )
    axes.set_ylabel("mean predicted probability")


def _draw_bands(
    axes: "Axes", records: Sequence[Record], shares: np.ndarray, names: Sequence[str], colors: list
) -> None:
    """Stacked shares [bands, steps], named at the right edge where they are wide enough."""
    steps = [record["step"] for record in records]
    axes.stackplot(steps, shares, colors=colors, linewidth=0)
    edges = np.concatenate([[0.0], np.cumsum(shares[:, -1])])
    for name, low, high in zip(names, edges[:-1], edges[1:], strict=True):
        if high - low > 0.03:
            axes.annotate(
                name,
                (1.02, (low + high) / 2),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                annotation_clip=False,
            )
    axes.set(xlabel="step", ylim=(0, 1), xlim=(1, max(steps[-1], 2)))
    axes.grid(False)


def draw_confusion(axes: "Axes", records: Sequence[Record]) -> None:
    """Most likely predicted state against the observed one, over all rolled-out groups."""
    table = confusion(records)
    names = _state_names(table.shape[0])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(table.shape):
        dark = share[row, column] > 0.5
        axes.annotate(
            f"{share[row, column]:.0%}\n{table[row, column]:,}",
            (column, row),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "#222222",
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="observed", ylabel="predicted")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def confusion(records: Sequence[Record]) -> np.ndarray:
    """Counts of (most likely predicted state, observed state).

    Where several states are equally likely (never seen prompts), each gets its part.

    Args:
        records: of all steps.

    Returns:
        int[K, K], rows are predictions. Parts are rounded.
    """
    size = len(records[0]["occupancy"])
    table = np.zeros((size, size))
    for record in records:
        predicted = np.asarray(record["groups"]["predicted"])
        state = np.asarray(record["groups"]["state"], int)
        likely = predicted >= predicted.max(axis=0, keepdims=True) - 1e-6
        for column in np.flatnonzero(state >= 0):
            table[:, state[column]] += likely[:, column] / likely[:, column].sum()
    return np.round(table).astype(int)


def draw_calibration(axes: "Axes", records: Sequence[Record]) -> None:
    """Predicted probability of "partial" against how often it was, with 95 % intervals."""
    mean, rate, error, count = calibration(*partial_predictions(records))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", label="perfect")
    axes.errorbar(mean, rate, yerr=error, fmt="none", ecolor=BLUE, capsize=2, linewidth=1)
    area = 6 + 90 * count / max(count.max(initial=0), 1)
    axes.scatter(mean, rate, s=area, color=BLUE, alpha=0.6, linewidth=0)
    label = "rolled-out prompts\n(area: how many)"
    axes.scatter([], [], s=24, color=BLUE, alpha=0.6, linewidth=0, label=label)
    axes.set(xlabel="predicted P(partial)", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="best", fontsize=8)


def calibration(
    predicted: np.ndarray, partial: np.ndarray, bins: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reliability of predicted probabilities, in bins of equal width.

    Args:
        predicted: float[M].
        partial: bool[M].
        bins: of [0, 1]; empty ones are left out.

    Returns:
        ``(mean prediction, observed share, distances to both ends of Wilson's 95 % interval
        [2, bins], count)``.
    """
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    kept, count = np.unique(place, return_counts=True)
    mean = np.array([predicted[place == b].mean() for b in kept], float)
    rate = np.array([partial[place == b].mean() for b in kept], float)
    z2 = 1.96**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * np.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2))
    error = np.stack([rate - (centre - half), centre + half - rate])
    return mean, rate, np.maximum(error, 0), count


def _state_names(size: int) -> tuple[str, ...]:
    middle = tuple(f"partial {i}" for i in range(1, size - 1))
    return _STATE_NAMES.get(size, ("unsolved", *middle, "solved"))


def _state_colors(size: int) -> list:
    import matplotlib

    if size == 3:
        return [RED, GREEN, ORANGE]
    return list(matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, size)))
