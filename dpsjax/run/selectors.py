"""Selectors as settings: one small dataclass each, whose fields are the options of a command.

Add a selector by adding a dataclass with ``build`` to one of the three families, and its name to
:data:`SelectorConfig`.
"""

from collections.abc import Sequence
from typing import get_args

from dpsjax.run.belief_selectors import (
    Arcus,
    BetaMean,
    Cures,
    Dps,
    DpsBinomial,
    Gcs,
    Insight,
    Kgps,
    Lilo,
    Mapp,
    Mopps,
    VarianceEma,
)
from dpsjax.run.budget_selectors import Knapsack, Speed, Vip
from dpsjax.run.curricula import Around
from dpsjax.run.rule_selectors import (
    Adarft,
    Depo,
    DynamicSampling,
    Greso,
    HistoryResampling,
    LearningProgress,
    Lppo,
    PrioritizedReplay,
    Sec,
    StaticOrder,
    Uniform,
    UniformEpochs,
    Vcrl,
)
from dpsjax.selectors import Selector
from dpsjax.tasks.base import Problem

__all__ = [
    "Adarft",
    "Arcus",
    "Around",
    "BetaMean",
    "Cures",
    "Depo",
    "Dps",
    "DpsBinomial",
    "DynamicSampling",
    "Gcs",
    "Greso",
    "HistoryResampling",
    "Insight",
    "Kgps",
    "Knapsack",
    "LearningProgress",
    "Lilo",
    "Lppo",
    "Mapp",
    "Mopps",
    "PrioritizedReplay",
    "Sec",
    "SelectorConfig",
    "Speed",
    "StaticOrder",
    "Uniform",
    "UniformEpochs",
    "VarianceEma",
    "Vcrl",
    "Vip",
    "build_selector",
    "default_selector",
    "max_rounds",
    "selector_name",
    "selector_names",
]

SelectorConfig = (
    Dps
    | DpsBinomial
    | Uniform
    | UniformEpochs
    | Mopps
    | BetaMean
    | Mapp
    | Insight
    | Kgps
    | Arcus
    | DynamicSampling
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
    | Depo
    | StaticOrder
    | Adarft
    | Sec
    | Speed
    | Knapsack
    | Vip
)


def build_selector(settings: SelectorConfig, problems: Sequence[Problem]) -> Selector:
    """The selector that settings describe, with its combinators.

    Args:
        settings: of one selector.
        problems: the pool, for selectors that know something of its prompts beforehand.

    Returns:
        the selector.

    Raises:
        ValueError: a setting does not fit the pool.
        OSError: a file that a setting names cannot be read.
    """
    if isinstance(settings, StaticOrder | Adarft | Sec):
        inner = settings.build(problems)
    else:
        inner = settings.build()
    return settings.around.build(inner, problems)


def max_rounds(settings: SelectorConfig) -> int | None:
    """Rounds of rollouts that a step may take to fill its batch.

    Args:
        settings: of one selector.

    Returns:
        1 where it does not refill; None for no limit.

    >>> max_rounds(Dps()), max_rounds(DynamicSampling())
    (1, None)
    """
    if isinstance(settings, DynamicSampling | Greso | Vcrl | Arcus | Speed):
        return settings.max_rounds
    return 1


def selector_name(config: SelectorConfig) -> str:
    """What ``--selector`` calls these settings.

    >>> selector_name(Dps(decay=0.7))
    'dps'
    """
    return _name(type(config))


def selector_names() -> tuple[str, ...]:
    """Every name that ``--selector`` takes.

    >>> selector_names()[:3]
    ('dps', 'dps-binomial', 'uniform')
    """
    return tuple(_name(kind) for kind in get_args(SelectorConfig))


def default_selector(name: str) -> SelectorConfig:
    """The settings called ``name``, at their defaults.

    Raises:
        ValueError: there is no such selector.

    >>> default_selector("dps").decay
    0.5
    """
    for kind in get_args(SelectorConfig):
        if _name(kind) == name:
            return kind()
    raise ValueError(f"selector={name!r} is not known: use one of {', '.join(selector_names())}")


def _name(kind: type) -> str:
    """``HistoryResampling`` is called ``history-resampling``."""
    word = kind.__name__
    return "".join("-" * (c.isupper() and i > 0) + c.lower() for i, c in enumerate(word))
