"""Chips and slices, as data.

Figures per chip, of Google's documentation (docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e, read
2026): peak bfloat16 operations, HBM capacity and bandwidth, bidirectional ICI bandwidth (halved
here: bytes that a chip can receive). ``usable_bytes`` is what the TPU compiler of libtpu allows a
program; the rest is reserved.
"""

import math
from typing import NamedTuple

GIB = 1 << 30

__all__ = ["CHIPS", "GIB", "Chip", "Slice", "parse_slice"]


class Chip(NamedTuple):
    """One TPU chip.

    Attributes:
        name: as in topology names.
        usable_bytes: memory a program may use.
        flops: peak bfloat16 operations a second.
        memory_bandwidth: bytes a second, HBM.
        link_bandwidth: bytes a second that a chip receives over all its ICI links together.
        dimensions: of the torus.
        accelerator: prefix of ``TPU_ACCELERATOR_TYPE``.
        cores: TensorCores, by which ``accelerator`` counts (v5p) or not (1).
    """

    name: str
    usable_bytes: int
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    dimensions: int
    accelerator: str
    cores: int


CHIPS = {
    "v5e": Chip("v5e", int(15.75 * GIB), 197e12, 819e9, 400e9 / 2, 2, "v5litepod", 1),
    "v5p": Chip("v5p", int(95.73 * GIB), 459e12, 2765e9, 1200e9 / 2, 3, "v5p", 2),
    "v6e": Chip("v6e", int(31.24 * GIB), 918e12, 1638e9, 800e9 / 2, 2, "v6e", 1),
}
# Slices that can be asked for by size: chips -> shape.
_FLAT = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBE = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
}


class Slice(NamedTuple):
    """Chips that are connected.

    Attributes:
        chip: their kind.
        shape: such as ``16x16``.
        size: how many.
    """

    chip: Chip
    shape: str
    size: int

    @property
    def topology(self) -> str:
        """The name that JAX knows."""
        return f"{self.chip.name}:{self.shape}"

    @property
    def accelerator_type(self) -> str:
        """The name that Google Cloud knows; v5p counts cores."""
        return f"{self.chip.accelerator}-{self.size * self.chip.cores}"


def parse_slice(name: str) -> Slice:
    """Read the name of a slice.

    Args:
        name: ``v5e:16x16`` (chip and shape), or Google Cloud's ``v5e-256`` and ``v5p-128`` (v5p
            counts cores, two a chip).

    Returns:
        The slice.

    Raises:
        ValueError: no such chip, shape or size.

    >>> parse_slice("v5p-128").topology, parse_slice("v5e:16x16").size
    ('v5p:4x4x4', 256)
    """
    kind, mark, rest = (
        name.partition(":") if ":" in name else name.replace("v5litepod", "v5e").partition("-")
    )
    if kind not in CHIPS or not rest:
        raise ValueError(
            f"topology={name!r} is not known: use {', '.join(CHIPS)} with a shape or a size, "
            "such as v5e:16x16, v5p:4x4x4 or v6e-64"
        )
    chip = CHIPS[kind]
    shapes = _CUBE if chip.dimensions == 3 else _FLAT
    if mark == "-":
        size = int(rest) // chip.cores if rest.isdigit() else 0
        if size not in shapes:
            sizes = ", ".join(str(count * chip.cores) for count in shapes)
            raise ValueError(f"topology={name!r}: {kind} slices have the sizes {sizes}")
        rest = shapes[size]
    sides = rest.split("x")
    if len(sides) != chip.dimensions or not all(side.isdigit() and int(side) for side in sides):
        raise ValueError(
            f"topology={name!r}: a {kind} slice has {chip.dimensions} sides, such as "
            f"{kind}:{list(shapes.values())[-1]}"
        )
    return Slice(chip, rest, math.prod(int(side) for side in sides))
