"""Line drawings as grey pictures: NumPy alone, the same bytes on every machine."""

import itertools
from collections.abc import Sequence

import numpy as np

from dpsjax.files import netpbm
from dpsjax.types import Float

Point = tuple[float | int, float | int]

SIDE = 56  # of a picture, in units
_INK = 1.4  # width of a line, in units
# Five rows of three columns.
_GLYPHS = {
    "0": "###/# #/# #/# #/###",
    "1": " # /## / # / # /###",
    "2": "###/  #/###/#  /###",
    "3": "###/  #/ ##/  #/###",
    "4": "# #/# #/###/  #/  #",
    "5": "###/#  /###/  #/###",
    "6": "###/#  /###/# #/###",
    "7": "###/  #/ # / # / # ",
    "8": "###/# #/###/# #/###",
    "9": "###/# #/###/  #/###",
    "x": "   /# #/ # /# #/   ",
}


class Canvas:
    """A white picture to draw black lines and small letters on.

    Coordinates are in units from the upper left corner, x to the right and y down; a picture has
    56 x 56 of them.
    """

    def __init__(self, scale: int):
        self.scale = scale
        steps = (np.arange(SIDE * scale, dtype=np.float64) + 0.5) / scale
        self._x, self._y = steps[None, :], steps[:, None]
        self._ink = np.zeros((SIDE * scale, SIDE * scale))

    def _add(self, distance: Float[np.ndarray, "H W"], width: float) -> None:
        covered = np.clip((width / 2 - distance) * self.scale + 0.5, 0, 1)
        self._ink = np.maximum(self._ink, covered)

    def segment(self, start: Point, end: Point) -> None:
        """A straight line."""
        (x, y), (u, v) = start, (end[0] - start[0], end[1] - start[1])
        along = ((self._x - x) * u + (self._y - y) * v) / (u * u + v * v)
        along = np.clip(along, 0, 1)
        self._add(np.hypot(self._x - x - along * u, self._y - y - along * v), _INK)

    def path(self, points: Sequence[Point]) -> None:
        """Straight lines from point to point."""
        for start, end in itertools.pairwise(points):
            self.segment(start, end)

    def circle(self, centre: Point, radius: float) -> None:
        """A circle."""
        self._add(np.abs(self._from(centre) - radius), _INK)

    def dot(self, centre: Point) -> None:
        """A filled point."""
        self._add(self._from(centre), 2 * _INK)

    def _from(self, centre: Point) -> Float[np.ndarray, "H W"]:
        return np.hypot(self._x - centre[0], self._y - centre[1])

    def label(self, text: str, centre: Point) -> None:
        """Digits or an x, around a point; nothing is drawn through them later or before."""
        rows = [np.array([[*row] for row in _GLYPHS[c].split("/")]) == "#" for c in text]
        gap = np.zeros((5, 1), bool)
        line = np.concatenate([part for glyph in rows for part in (glyph, gap)][:-1], axis=1)
        box = np.kron(np.pad(line, 1), np.ones((self.scale, self.scale)))
        height, width = box.shape
        top = round(centre[1] * self.scale - height / 2)
        left = round(centre[0] * self.scale - width / 2)
        top = min(max(top, 0), len(self._ink) - height)
        left = min(max(left, 0), len(self._ink) - width)
        self._ink[top : top + height, left : left + width] = box

    def file(self) -> bytes:
        """The picture as a file (Netpbm)."""
        return netpbm(np.round(255 * (1 - self._ink)).astype(np.uint8))
