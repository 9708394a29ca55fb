"""A model of a step's seconds: operations, memory and links against the chip's peak figures.

It is a roofline, not a measurement. Each program takes as long as the slowest of its three
resources, each at a stated share of its peak; were nothing overlapped, it would take their sum. To
launch a program and to wait for its result takes a fixed time besides.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from dpsjax.plan.chips import Chip
from dpsjax.plan.hlo import Traffic

__all__ = [
    "COMPARISON",
    "EFFICIENCY",
    "Comparison",
    "Efficiency",
    "Saving",
    "Seconds",
    "program_seconds",
    "saving",
]


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """Shares of the peak figures that a program is assumed to reach. Assumptions, not measured.

    Attributes:
        compute: of the bfloat16 operations.
        memory: of the HBM bandwidth.
        links: of all ICI links of a chip together: a collective along one axis of a torus uses
            half of a flat torus' links.
        launch: seconds that every program takes besides, and so the least that selection costs.
    """

    compute: float = 0.6
    memory: float = 0.8
    links: float = 0.5
    launch: float = 0.002

    def __post_init__(self):
        for name in ("compute", "memory", "links"):
            value = dataclasses.asdict(self)[name]
            if not 0 < value <= 1:
                raise ValueError(f"efficiency.{name}={value} must lie in (0, 1]")
        if not self.launch >= 0:
            raise ValueError(f"efficiency.launch={self.launch} must be 0 or more seconds")


EFFICIENCY = Efficiency()


class Seconds(NamedTuple):
    """Of one program on one device.

    Attributes:
        compute: seconds of its operations.
        memory: of its memory traffic.
        links: of its collectives.
        launch: whatever it does.
    """

    compute: float
    memory: float
    links: float
    launch: float

    @property
    def least(self) -> float:
        """All overlapped: the slowest resource's."""
        return self.launch + max(self.compute, self.memory, self.links)

    @property
    def most(self) -> float:
        """Nothing overlapped."""
        return sum(self)

    @property
    def limit(self) -> str:
        """What takes the longest."""
        return max(self._asdict().items(), key=lambda item: item[1])[0]


def program_seconds(
    flops: float, traffic: Traffic, chip: Chip, efficiency: Efficiency = EFFICIENCY
) -> Seconds:
    """Seconds of each resource.

    Args:
        flops: operations of one device.
        traffic: bytes of one device.
        chip: peak figures.
        efficiency: the share of them that is reached.

    Returns:
        The three.
    """
    return Seconds(
        compute=flops / (chip.flops * efficiency.compute),
        memory=traffic.memory / (chip.memory_bandwidth * efficiency.memory),
        links=sum(traffic.collectives.values()) / (chip.link_bandwidth * efficiency.links),
        launch=efficiency.launch,
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How many rollouts a selector makes for its effective groups. Assumptions.

    Attributes:
        ds_factor: rollouts that dynamic sampling (DS) makes for each that it trains on. The
            paper's own counts: 2,933k against 737k (1.5B) and 1,147k against 287k (7B), 4.0 each.
        dps_effective: share of DPS's groups whose rewards differ; about 0.9 in the paper. A DPS
            step is charged for the groups it lacks.
    """

    ds_factor: float = 4.0
    dps_effective: float = 0.9

    def __post_init__(self):
        if self.ds_factor < 1:
            raise ValueError(f"ds_factor={self.ds_factor} must be at least 1")
        if not 0 < self.dps_effective <= 1:
            raise ValueError(f"dps_effective={self.dps_effective} must lie in (0, 1]")


COMPARISON = Comparison()


class Saving(NamedTuple):
    """DPS against DS for as many effective groups as one batch has prompts.

    Attributes:
        dps: seconds.
        ds: seconds.
        factor: ``ds / dps``.
    """

    dps: float
    ds: float
    factor: float


def saving(seconds: Mapping[str, float], comparison: Comparison = COMPARISON) -> Saving:
    """Compare DPS with DS at equal effective groups.

    DS generates ``ds_factor`` batches and updates once; DPS makes its step ``1 / dps_effective``
    times.

    Args:
        seconds: of every stage of DPS's step, ``generate`` and ``update`` among them.
        comparison: the assumptions.

    Returns:
        Seconds of both.

    >>> saving({"select": 0.0, "generate": 9.0, "update": 3.6}, Comparison(4.0, 0.9)).factor
    2.8285714285714287
    """
    dps = sum(seconds.values()) / comparison.dps_effective
    ds = comparison.ds_factor * seconds["generate"] + seconds["update"]
    return Saving(dps, ds, ds / dps)
