"""Selectors as settings: one small dataclass each, whose fields are the options of a command.

Add a selector by adding a dataclass with ``build`` here and to :data:`SelectorConfig`.
"""

from dataclasses import dataclass
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

    def __post_init__(self):
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay={self.decay} must lie in [0, 1]")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"candidates={self.candidates} must be at least 1")

    def build(self) -> Selector:
        """The selector."""
        prior: Any = self.prior_alpha  # a number, a name or a matrix
        return selectors.dps(
            decay=self.decay,
            prior_alpha=prior,
            num_states=self.states,
            entropy=self.entropy,
            candidates=self.candidates,
        )


SelectorConfig = Dps | Uniform


def selector_name(config: SelectorConfig) -> str:
    """What ``--selector`` calls these settings.

    >>> selector_name(Dps(decay=0.7))
    'dps'
    """
    return _name(type(config))


def selector_names() -> tuple[str, ...]:
    """Every name that ``--selector`` takes.

    >>> selector_names()
    ('dps', 'uniform')
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
