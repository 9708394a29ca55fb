"""Options that ``dpsjax plan`` and ``dpsjax train --plan`` share."""

import dataclasses
from pathlib import Path

from dpsjax.plan.cost import COMPARISON, EFFICIENCY, Comparison, Efficiency

__all__ = ["PLAN_OPTIONS", "PlanOptions"]


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """How a plan is made, and where it is written."""

    estimate: bool = False
    """Do not compile: estimate from shapes, in seconds."""
    minutes: float = 4.0
    """Wait so long for the compiler; what is not compiled by then is estimated."""
    json: Path | None = None
    """Write everything to this file, too."""
    efficiency: Efficiency = EFFICIENCY
    """Shares of the chip's peak figures that the model of cost assumes."""
    comparison: Comparison = COMPARISON
    """What the comparison with dynamic sampling (DS) assumes."""

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"minutes={self.minutes} must be above 0")


PLAN_OPTIONS = PlanOptions()
