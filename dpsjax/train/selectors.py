"""Selectors as settings: one small dataclass each, whose fields are the options of a command.

Add a selector by adding a dataclass with ``build`` here and to :data:`SelectorConfig`.
"""

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, Literal, get_args

from dpsjax import selectors
from dpsjax.selectors import Selector


@dataclass(frozen=True)
class Uniform:
    """Every prompt equally likely, without repeats in a batch."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.uniform()


@dataclass(frozen=True)
class Dps:
    """Dynamics-Predictive Sampling: the prompts most likely to be partially solved."""

    decay: float = 0.5
    """Forgetting factor lambda in [0, 1]: 1 never forgets. The paper: 0.5 on Countdown."""
    prior_alpha: Literal["uniform", "progress", "stability", "local"] = "uniform"
    """Prior counts of the moves between solve states; the paper uses uniform ones."""
    states: Literal[2, 3, 5, 7] = 3
    """Solve states: never, partly and always solved (3), or finer or coarser cuts."""
    entropy: float | None = None
    """Weight of the entropy bonus ("DPS+Entropy"); none by default."""
    candidates: int | None = 512
    """Random candidates to choose from each step, the whole pool if None; the paper: 8 a prompt."""
    cool_down: int = 0
    """Steps in which a prompt is not drawn again."""

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
            entropy=self.entropy,
            candidates=self.candidates,
        )
        return _cooled(dps, self.cool_down)


def _cooled(selector: Selector, steps: int) -> Selector:
    if not steps:
        return selector
    return selectors.chain(selector, selectors.cool_down(steps, strict=False))


def _options(settings) -> dict[str, Any]:
    """The fields, which are named as the recipe's arguments are."""
    return {field.name: getattr(settings, field.name) for field in dataclass_fields(settings)}


@dataclass(frozen=True)
class UniformEpochs:
    """Every prompt once before any comes again."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.uniform_epochs()


@dataclass(frozen=True)
class Mopps:
    """MoPPS: Thompson draws of Beta beliefs, those nearest the target."""

    decay: float = 0.5
    """Forgetting factor at each visit. The released scripts: 1 on MATH, 0.5 elsewhere."""
    target: float = 0.5
    """Pass rate wanted."""
    candidates: int | None = None
    """Size of a random candidate pool drawn each step; the whole pool by default."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.mopps(**_options(self))


@dataclass(frozen=True)
class BetaMean:
    """Posterior-mean Beta: expected pass rates nearest the target."""

    decay: float = 0.5
    """Forgetting factor at each visit."""
    target: float = 0.5
    """Pass rate wanted."""
    cool_down: int = 12
    """Steps in which a prompt is not drawn again."""

    def build(self) -> Selector:
        """The selector."""
        return _cooled(selectors.beta_mean(self.decay, self.target), self.cool_down)


@dataclass(frozen=True)
class Mapp:
    """MaPP: posterior-predictive chance of a mixed group."""

    decay: float = 0.5
    """Forgetting factor at each visit; 0.5 in the paper."""
    group: int = 8
    """Rollouts of a prompt."""
    top: bool = False
    """Take the best instead of drawing in proportion, which is the published way."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.mapp(**_options(self))


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

    def build(self) -> Selector:
        """The selector."""
        return selectors.insight(**_options(self))


@dataclass(frozen=True)
class Kgps:
    """KGPS: a Kalman filter of the logit of the pass rate."""

    process_noise: float = 0.1
    """Variance of the logit that one step adds."""
    variance: float = 1.0
    """Variance of the logit of prompts never seen."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.kgps(**_options(self))


@dataclass(frozen=True)
class Arcus:
    """ARCUS: a Kalman filter of the arc length of the pass rate, and a Gumbel draw."""

    group: int = 8
    """Rollouts of a prompt."""
    temperature: float = 0.3
    """Of the draw; 0.3 in the paper."""
    rate: float = 0.1
    """Of the adaptation of drift and process noise; 0.1 in the paper."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.arcus(**_options(self))


@dataclass(frozen=True)
class Greso:
    """GRESO: prompts with a streak of agreeing groups are skipped more and more."""

    start: float = 0.5
    """Base probability of keeping; 0.5 in the released code."""
    target: float = 0.25
    """Wanted share of groups that agree; 0.25 there."""
    change: float = 0.01
    """Of the base probabilities in a step; 0.01 there."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.greso(**_options(self))


@dataclass(frozen=True)
class HistoryResampling:
    """History resampling (SRPO): prompts that were all right leave for an epoch."""

    exclude: Literal["next_epoch", "forever", "this_epoch"] = "next_epoch"
    """How long a solved prompt is left out."""
    epoch_steps: int | None = None
    """Steps of an epoch; one pass over what is left by default."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.history_resampling(**_options(self), strict=False)


@dataclass(frozen=True)
class VarianceEma:
    """The largest moving average of p (1 - p)."""

    decay: float = 0.9
    """Weight of the past."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.variance_ema(**_options(self))


@dataclass(frozen=True)
class Gcs:
    """GCS: a Gaussian weight on the averaged pass rate."""

    decay: float = 0.9
    """Weight of the past; 0.9 in the paper."""
    width: float = 0.35
    """Of the Gaussian; 0.35 in the paper."""
    target: float = 0.5
    """Pass rate wanted; 0.5 in the paper."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.gcs(**_options(self))


@dataclass(frozen=True)
class Cures:
    """CurES: a softmax over the standard deviation of the pass rate."""

    temperature: float = 0.1
    """Of the softmax; not known to us."""
    decay: float = 1.0
    """Forgetting factor at each visit; 1 in the paper."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.cures(**_options(self))


@dataclass(frozen=True)
class Lilo:
    """LILO: learnability p (1 - p)."""

    decay: float = 0.0
    """Forgetting factor at each visit; 0 keeps the last group alone."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.lilo(**_options(self))


@dataclass(frozen=True)
class LearningProgress:
    """Prompts whose averaged pass rate changed most."""

    decay: float = 0.8
    """Weight of the past in the average."""
    explore: float = 0.1
    """Share of the batch for the least visited."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.learning_progress(**_options(self))


@dataclass(frozen=True)
class Lppo:
    """LPPO's learning-progress weights of the loss, on uniform draws."""

    decay: float = 0.8
    """Weight of the past in the averaged pass rate."""
    slope: float = 8.0
    """Kappa of the sigmoid."""
    base: float = 0.5
    """Least weight."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.lppo(**_options(self))


@dataclass(frozen=True)
class Vcrl:
    """VCRL's gate: groups of too little variance stay out of the loss."""

    threshold: float = 0.5
    """Least normalised variance."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.vcrl(**_options(self))


@dataclass(frozen=True)
class PrioritizedReplay:
    """Prioritized level replay: by the rank of p (1 - p) and by staleness."""

    temperature: float = 0.1
    """Of the ranks; 0.1 in the paper."""
    staleness: float = 0.1
    """Share of staleness; 0.1 in the paper."""

    def build(self) -> Selector:
        """The selector."""
        return selectors.prioritized_replay(**_options(self))


SelectorConfig = (
    Dps
    | Uniform
    | UniformEpochs
    | Mopps
    | BetaMean
    | Mapp
    | Insight
    | Kgps
    | Arcus
    | Greso
    | HistoryResampling
    | VarianceEma
    | Gcs
    | Cures
    | Lilo
    | LearningProgress
    | Lppo
    | Vcrl
    | PrioritizedReplay
)


def selector_name(config: SelectorConfig) -> str:
    """What ``--selector`` calls these settings.

    >>> selector_name(Dps(decay=0.7))
    'dps'
    """
    return _name(type(config))


def selector_names() -> tuple[str, ...]:
    """Every name that ``--selector`` takes.

    >>> selector_names()[:3]
    ('dps', 'uniform', 'uniform-epochs')
    """
    return tuple(_name(kind) for kind in get_args(SelectorConfig))


def default_selector(name: str) -> SelectorConfig:
    """The settings called ``name``, at their defaults.

    Raises:
        ValueError: there is no such selector.

    >>> default_selector("uniform")
    Uniform()
    """
    for kind in get_args(SelectorConfig):
        if _name(kind) == name:
            return kind()
    raise ValueError(f"selector={name!r} is not known: use one of {', '.join(selector_names())}")


def _name(kind: type) -> str:
    """``HistoryResampling`` is called ``history-resampling``."""
    word = kind.__name__
    return "".join("-" * (c.isupper() and i > 0) + c.lower() for i, c in enumerate(word))
