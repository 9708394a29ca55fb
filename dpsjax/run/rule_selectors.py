"""Settings of the selectors that order, skip, weigh or veto; some go by what is known beforehand.

A field is an option of the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dpsjax import selectors
from dpsjax.run.curricula import (
    Around,
    Inner,
    categories,
    difficulties,
    inner_selector,
    options,
    source_names,
)
from dpsjax.selectors import Selector
from dpsjax.tasks.base import Problem


@dataclass(frozen=True)
class Uniform:
    """Every prompt equally likely, without repeats in a batch."""

    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.uniform()


@dataclass(frozen=True)
class UniformEpochs:
    """Every prompt once before any comes again."""

    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.uniform_epochs()


@dataclass(frozen=True)
class HistoryResampling:
    """History resampling (SRPO): prompts that were all right leave for an epoch."""

    exclude: Literal["next_epoch", "forever", "this_epoch"] = "next_epoch"
    """How long a solved prompt is left out."""
    epoch_steps: int | None = None
    """Steps of an epoch; one pass over what is left by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.history_resampling(**options(self), strict=False)


@dataclass(frozen=True)
class Greso:
    """GRESO: prompts with a streak of agreeing groups are skipped more and more."""

    start: float = 0.5
    """Base probability of keeping; 0.5 in the released code."""
    target: float = 0.25
    """Wanted share of groups that agree; 0.25 there."""
    change: float = 0.01
    """Of the base probabilities in a step; 0.01 there."""

    max_rounds: int | None = None
    """Rounds of rollouts to fill a batch, as published; as many as it takes by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.greso(self.start, self.target, self.change)


@dataclass(frozen=True)
class LearningProgress:
    """Prompts whose averaged pass rate changed most."""

    decay: float = 0.8
    """Weight of the past in the average."""
    explore: float = 0.1
    """Share of the batch for the least visited."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.learning_progress(**options(self))


@dataclass(frozen=True)
class Lppo:
    """LPPO's learning-progress weights of the loss, on uniform draws."""

    decay: float = 0.8
    """Weight of the past in the averaged pass rate."""
    slope: float = 8.0
    """Kappa of the sigmoid."""
    base: float = 0.5
    """Least weight."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.lppo(**options(self), late=True)


@dataclass(frozen=True)
class Vcrl:
    """VCRL's gate: groups of too little variance stay out of the loss."""

    threshold: float = 0.5
    """Least normalised variance."""

    bank: float = 0.0
    """Share of the batch drawn from the memory bank: the highest averaged variance."""
    momentum: float = 0.9
    """Weight of the past in that average."""
    max_rounds: int | None = 1
    """Rounds of rollouts to fill a batch with groups that pass the gate."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.vcrl(self.threshold, bank=self.bank, momentum=self.momentum)


@dataclass(frozen=True)
class PrioritizedReplay:
    """Prioritized level replay: by the rank of p (1 - p) and by staleness."""

    temperature: float = 0.1
    """Of the ranks; 0.1 in the paper."""
    staleness: float = 0.1
    """Share of staleness; 0.1 in the paper."""

    decay: float = 0.0
    """Weight of the past in the average of p (1 - p); 0 keeps the last group."""
    by_rank: bool = True
    """By rank, as the paper prefers, or in proportion to the value."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.prioritized_replay(**options(self))


@dataclass(frozen=True)
class DynamicSampling:
    """DAPO's dynamic sampling: rollouts go on until the batch is full of mixed groups."""

    max_rounds: int | None = None
    """Rounds of rollouts in a step; the released scripts: 4 or 10. As many as it takes by default,
    but no more than ask the whole pool once."""
    inner: Inner = "uniform-epochs"
    """What draws the prompts; DAPO's loader goes through the pool without repeats."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.dynamic_sampling(inner_selector(self.inner))


@dataclass(frozen=True)
class Depo:
    """DEPO's online stage: explorability with replay, and a share for the least visited."""

    history: int = 3
    """Visits remembered."""
    entropy_limit: float = 1.5
    """Wrong answers of more entropy than this multiple of the right ones' count nothing."""
    explore: float = 0.1
    """Share of the batch for the least visited."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.depo(**options(self))


@dataclass(frozen=True)
class StaticOrder:
    """Through the pool in a fixed order of difficulty, the easiest first."""

    hardest_first: bool = False
    """The other way round."""
    difficulty: Path | None = None
    """A trace.jsonl whose pass rates say what is difficult; the order of the sources by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self, problems: Sequence[Problem]) -> Selector:
        """The selector, for a pool of problems."""
        return selectors.static_order(difficulties(problems, self.difficulty), self.hardest_first)


@dataclass(frozen=True)
class Adarft:
    """AdaRFT: the prompts nearest a target difficulty that follows the pass rate."""

    start: float = 0.0
    """Target at first, of 0 to 100."""
    step: float = 50.0
    """Eta; 50 in the released code."""
    sensitivity: float = 2.0
    """Alpha; 2 in the released code."""
    wanted: float = 0.5
    """Pass rate aimed at."""
    difficulty: Path | None = None
    """A trace.jsonl whose pass rates say what is difficult; the order of the sources by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self, problems: Sequence[Problem]) -> Selector:
        """The selector, for a pool of problems."""
        known = difficulties(problems, self.difficulty)
        return selectors.adarft(known, self.start, self.step, self.sensitivity, self.wanted)


@dataclass(frozen=True)
class Sec:
    """SEC: a bandit over the sources of prompts."""

    rate: float = 0.5
    """Of learning; not published."""
    temperature: float = 0.2
    """Of the Boltzmann draw; not published."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self, problems: Sequence[Problem]) -> Selector:
        """The selector, for a pool of problems."""
        names = source_names(problems)
        return selectors.sec(categories(problems), len(names), self.rate, self.temperature)
