"""Settings of the selectors that decide how many rollouts a prompt gets.

A field is an option of the command line.
"""

from dataclasses import dataclass, field
from typing import Annotated

import jax.numpy as jnp
import tyro

from dpsjax import selectors
from dpsjax.checks import require_setting
from dpsjax.loop.allocation import Allocation
from dpsjax.run.belief_selectors import Cures
from dpsjax.run.curricula import Around, Inner, inner_selector
from dpsjax.selectors import Selector


@dataclass(frozen=True)
class Knapsack:
    """Knapsack RL: the rollouts of a step go where they are worth most, some prompts get none."""

    lowest: int = 0
    """Rollouts that every prompt gets."""
    highest: int = 32
    """Most rollouts of one prompt."""
    inner: Inner = "beta-mean"
    """What draws the prompts; it or a Beta belief beside it says what rollouts are worth."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def __post_init__(self):
        require_setting(self.lowest >= 0, "lowest", self.lowest, "at least 0")

    def build(self) -> Selector:
        """The selector."""
        return inner_selector(self.inner)

    def allocation(self) -> Allocation:
        """How a step's rollouts are split."""

        def split(rate, budget):
            value = selectors.knapsack_value(rate, self.highest)
            return selectors.knapsack(value, budget, self.lowest)

        return Allocation(split, self.highest, per_prompt=False)


@dataclass(frozen=True)
class Vip:
    """VIP: rollouts are split so that the variance of the gradient is least."""

    lowest: int = 3
    """Rollouts that every prompt gets; at least 3."""
    highest: int = 32
    """Most rollouts of one prompt."""
    inner: Inner = "beta-mean"
    """What draws the prompts; it or a Beta belief beside it says what varies how much."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def __post_init__(self):
        require_setting(self.lowest >= 3, "lowest", self.lowest, "at least 3")

    def build(self) -> Selector:
        """The selector."""
        return inner_selector(self.inner)

    def allocation(self) -> Allocation:
        """How a step's rollouts are split; each prompt counts alike in the loss."""

        def split(rate, budget):
            return selectors.vip_allocate(rate, budget, self.lowest, self.highest)

        return Allocation(split, self.highest, per_prompt=True)


@dataclass(frozen=True)
class Speed:
    """SPEED-RL: a few rollouts decide which prompts get the rest."""

    screen: int = 4
    """Rollouts of the screening, of --grpo.rollouts-per-prompt in all. The released script: 4 and
    20 more, so 24."""
    max_rounds: int | None = None
    """Rounds of screening in a step; as many as fill the batch by default, but no more than ask the
    whole pool once."""
    inner: Inner = "uniform"
    """What draws the prompts."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def __post_init__(self):
        require_setting(self.screen >= 2, "screen", self.screen, "at least 2, to differ")

    def build(self) -> Selector:
        """The selector."""
        return selectors.speed(inner_selector(self.inner))


def allocation_of(settings: object, prompts: int, group: int) -> Allocation | None:
    """How the rollouts of a step are split among its prompts.

    Args:
        settings: of one selector.
        prompts: B.
        group: G, the mean.

    Returns:
        None where all get G.

    Raises:
        ValueError: the bounds do not allow a mean of G.
    """
    if isinstance(settings, Cures) and settings.allocate:
        # In proportion to the deviation of a rollout, whatever that gives.
        def split(rate, budget):
            return selectors.allocate_proportional(jnp.sqrt(rate * (1 - rate)), budget)

        return Allocation(split, prompts * group, per_prompt=False)
    if not isinstance(settings, Knapsack | Vip):
        return None
    if not settings.lowest <= group <= settings.highest:
        raise ValueError(
            f"grpo.rollouts_per_prompt={group} is the mean of what the prompts get: it must lie "
            f"between selector.lowest={settings.lowest} and selector.highest={settings.highest}"
        )
    return settings.allocation()


def screen_of(settings: object) -> int | None:
    """Rollouts of a selector's screening; None where it has none."""
    return settings.screen if isinstance(settings, Speed) else None
