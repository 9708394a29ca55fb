"""Settings of the selectors that score a belief about each prompt.

A field is an option of the command line.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from dpsjax import selectors
from dpsjax.run.curricula import Around, options
from dpsjax.selectors import Selector


@dataclass(frozen=True)
class Dps:
    """Dynamics-Predictive Sampling: the prompts most likely to be partially solved."""

    decay: float = 0.5
    """Forgetting factor lambda in [0, 1]: 1 never forgets. The paper: 0.5 on Countdown."""
    prior_alpha: Literal["uniform", "progress", "stability", "local"] = "uniform"
    """Prior counts of the moves between solve states; the paper uses uniform ones."""
    states: Literal[2, 3, 5, 7] = 3
    """Solve states: never, partly and always solved (3), or finer or coarser cuts."""
    wanted: Literal["partial", "middle"] = "partial"
    """States that count: all partly solved ones, or the middle one alone."""
    entropy: float | None = None
    """Weight of the entropy bonus ("DPS+Entropy"); none by default."""
    candidates: int | None = 512
    """Random candidates to choose from each step, the whole pool if None; the paper: 8 a prompt."""
    proportional: bool = False
    """Draw in proportion to that probability, instead of taking the highest."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def __post_init__(self):
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay={self.decay} must lie in [0, 1]")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"candidates={self.candidates} must be at least 1")

    def build(self) -> Selector:
        """The selector."""
        prior: Any = self.prior_alpha  # a number, a name or a matrix
        dps = selectors.dps(
            decay=self.decay,
            prior_alpha=prior,
            num_states=self.states,
            target=None if self.wanted == "partial" else selectors.middle_state(self.states),
            entropy=self.entropy,
            candidates=self.candidates,
        )
        return selectors.chain(dps, selectors.draw_proportional()) if self.proportional else dps


@dataclass(frozen=True)
class DpsBinomial:
    """DPS with a chain over solve rates, binomial counts and shared moves; not published."""

    group: int = 8
    """Rollouts of a prompt."""
    power: float = 4.0
    """Prompts are drawn in proportion to this power of their chance to be mixed."""
    cells: int = 16
    """Of the grid of solve rates."""
    decay: float = 0.9
    """Forgetting factor of the counts of moves."""
    memory: float = 0.9
    """Weight of the past in what is believed of prompts never seen."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.dps_binomial(**options(self))


@dataclass(frozen=True)
class Mopps:
    """MoPPS: Thompson draws of Beta beliefs, those nearest the target."""

    decay: float = 0.5
    """Forgetting factor at each visit. The released scripts: 1 on MATH, 0.5 elsewhere."""
    target: float = 0.5
    """Pass rate wanted."""
    band: tuple[float, float] | None = None
    """Draws inside all tie (the "threshold" variant; 0.3 0.7 in the released code), instead of the
    target."""
    candidates: int | None = None
    """Size of a random candidate pool drawn each step; the whole pool by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.mopps(**options(self))


@dataclass(frozen=True)
class BetaMean:
    """Posterior-mean Beta: expected pass rates nearest the target."""

    decay: float = 0.5
    """Forgetting factor at each visit."""
    target: float = 0.5
    """Pass rate wanted."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Around(cool_down=12)
    )

    def build(self) -> Selector:
        """The selector."""
        return selectors.beta_mean(self.decay, self.target)


@dataclass(frozen=True)
class Mapp:
    """MaPP: posterior-predictive chance of a mixed group."""

    decay: float = 0.5
    """Forgetting factor at each visit; 0.5 in the paper."""
    group: int = 8
    """Rollouts of a prompt."""
    top: bool = False
    """Take the best instead of drawing in proportion, which is the published way."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.mapp(**options(self))


@dataclass(frozen=True)
class Insight:
    """InSight: weighted mutual information between rollouts and pass rate."""

    group: int = 8
    """Rollouts of a prompt."""
    target: float = 0.3
    """Pass rate wanted; 0.3 in the paper."""
    sharpness: float = 1.0
    """Weight of the distance from the target; not published."""
    decay: float = 1.0
    """Forgetting factor at each visit; 1 in the paper."""

    candidates: int | None = None
    """Size of a random candidate pool drawn each step; the whole pool by default."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.insight(**options(self))


@dataclass(frozen=True)
class Kgps:
    """KGPS: a Kalman filter of the logit of the pass rate."""

    process_noise: float = 0.1
    """Variance of the logit that one step adds."""
    variance: float = 1.0
    """Variance of the logit of prompts never seen."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.kgps(**options(self))


@dataclass(frozen=True)
class Arcus:
    """ARCUS: a Kalman filter of the arc length of the pass rate, and a Gumbel draw."""

    group: int = 8
    """Rollouts of a prompt."""
    temperature: float = 0.3
    """Of the draw; 0.3 in the paper."""
    rate: float = 0.1
    """Of the adaptation of drift and process noise; 0.1 in the paper."""

    paced: bool = False
    """Move the target along the predicted share of mixed groups, as the paper does."""
    refit: int | None = 100
    """Groups after which prompts never seen get the empirical moments; 100 in the paper."""
    max_rounds: int | None = 1
    """Rounds of rollouts to fill a batch with mixed groups."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.arcus(
            self.group,
            temperature=self.temperature,
            rate=self.rate,
            paced=self.paced,
            refit=self.refit,
        )


@dataclass(frozen=True)
class VarianceEma:
    """The largest moving average of p (1 - p)."""

    decay: float = 0.9
    """Weight of the past."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.variance_ema(**options(self))


@dataclass(frozen=True)
class Gcs:
    """GCS: a Gaussian weight on the averaged pass rate."""

    decay: float = 0.9
    """Weight of the past; 0.9 in the paper."""
    width: float = 0.35
    """Of the Gaussian; 0.35 in the paper."""
    target: float = 0.5
    """Pass rate wanted; 0.5 in the paper."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.gcs(**options(self))


@dataclass(frozen=True)
class Cures:
    """CurES: a softmax over the standard deviation of the pass rate."""

    temperature: float = 0.1
    """Of the softmax; not known to us."""
    decay: float = 1.0
    """Forgetting factor at each visit; 1 in the paper."""
    allocate: bool = False
    """Split the rollouts of a step in proportion to that deviation too, as the paper does."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.cures(self.temperature, self.decay)


@dataclass(frozen=True)
class Lilo:
    """LILO: learnability p (1 - p)."""

    decay: float = 0.0
    """Forgetting factor at each visit; 0 keeps the last group alone."""
    around: Annotated[Around, tyro.conf.arg(name="")] = field(default_factory=Around)

    def build(self) -> Selector:
        """The selector."""
        return selectors.lilo(**options(self))
