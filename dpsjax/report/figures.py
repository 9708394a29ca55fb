"""Pictures at the size of a paper's column: colours, style, and the files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Okabe and Ito's palette: told apart with any colour vision, and in print.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY = "#CC79A7", "#56B4E9"
STYLE = {
    "figure.dpi": 200,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def write_figures(
    folder: Path,
    title: str,
    drawings: Mapping[str, tuple[Callable[[Any], Any], tuple[float, float]]],
) -> list[Path]:
    """Draw pictures and write them.

    Args:
        folder: made if missing.
        title: written above each picture.
        drawings: name -> what draws into given axes, and the size in inches.

    Returns:
        the files, PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with plt.style.context(["default", STYLE]):
        for name, (draw, size) in drawings.items():
            figure, axes = plt.subplots(figsize=size, layout="constrained")
            draw(axes)
            axes.set_title(title, loc="left", fontsize=8, color="#444444")
            path = folder / f"{name}.png"
            figure.savefig(path)
            plt.close(figure)
            written.append(path)
    return written
