"""What selectors have in common as settings: how a draw is completed, what is known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from dpsjax import selectors
from dpsjax.selectors import Selector
from dpsjax.selectors.combinators import RowData
from dpsjax.tasks.base import Problem
from dpsjax.tasks.traces import read_trace

Inner = Literal["uniform-epochs", "uniform", "dps", "dps-binomial", "mopps", "beta-mean"]


def inner_selector(name: Inner) -> Selector:
    """The selector called so, at its defaults, inside another."""
    inner = {
        "uniform-epochs": selectors.uniform_epochs,
        "uniform": selectors.uniform,
        "dps": selectors.dps,
        "dps-binomial": selectors.dps_binomial,
        "mopps": selectors.mopps,
        "beta-mean": selectors.beta_mean,
    }
    return inner[name]()


@dataclass(frozen=True)
class Around:
    """Combinators around a selector; none by default."""

    cool_down: int = 0
    """Steps in which a prompt is not drawn again."""
    mix_uniform: float = 0.0
    """Share of the batch that is drawn uniformly."""
    revisit_after: int = 0
    """Prompts last seen solved come again after so many steps; 0 for no such promise."""
    revisit_share: float = 0.1
    """Largest share of the batch that these take."""
    stratify: bool = False
    """Give each source of prompts the share of the batch that it has of the pool."""

    def __post_init__(self):
        if self.cool_down < 0 or self.revisit_after < 0:
            raise ValueError(
                f"cool_down={self.cool_down} and revisit_after={self.revisit_after} must be at "
                "least 0"
            )
        for name in ("mix_uniform", "revisit_share"):
            if not 0 <= vars(self)[name] <= 1:
                raise ValueError(f"{name}={vars(self)[name]} must lie in [0, 1]")

    def build(self, inner: Selector, problems: Sequence[Problem]) -> Selector:
        """``inner`` with these combinators behind it, for a pool of problems."""
        parts = []
        if self.mix_uniform:
            parts.append(selectors.mix(selectors.uniform(), self.mix_uniform))
        if self.stratify:
            kinds = np.array([source_names(problems).index(p.source) for p in problems])
            parts.append(selectors.stratify(categories(problems), np.bincount(kinds).tolist()))
        if self.revisit_after:
            parts.append(selectors.revisit(self.revisit_after, self.revisit_share))
        if self.cool_down:
            parts.append(selectors.cool_down(self.cool_down, strict=False))
        return selectors.chain(inner, *parts) if parts else inner


def options(settings: Any) -> dict[str, Any]:
    """The fields that are arguments of the recipe, which are named as they are."""
    names = [field.name for field in dataclass_fields(settings)]
    return {name: vars(settings)[name] for name in names if name not in ("around", "max_rounds")}


def source_names(problems: Sequence[Problem]) -> list[str]:
    """The sources of a pool, in alphabetical order."""
    return sorted({problem.source for problem in problems})


def categories(problems: Sequence[Problem]) -> RowData:
    """The source of each prompt, as its place in :func:`source_names`."""
    names = source_names(problems)
    return _rows(np.array([names.index(problem.source) for problem in problems], np.int32))


def difficulties(problems: Sequence[Problem], trace: Path | None) -> RowData:
    """A difficulty in [0, 100] for each prompt, known before training.

    Args:
        problems: the pool.
        trace: recorded rollouts of the same pool; a prompt's difficulty is the share that failed,
            in per cent, and 50 for prompts that are not in it. Without, it is the place of the
            prompt's source in alphabetical order, which for Countdown is how many numbers it has.

    Returns:
        the difficulties, for a pool of any number of rows.

    Raises:
        ValueError: the trace is of another pool.
        OSError: it cannot be read.
    """
    if trace is None:
        names = source_names(problems)
        place = np.array([names.index(problem.source) for problem in problems], np.float32)
        return _rows(100 * place / max(len(names) - 1, 1))
    found = read_trace(trace)
    if found.num_prompts != len(problems):
        raise ValueError(
            f"difficulty={str(trace)!r} is of a pool of {found.num_prompts} prompts, and this one "
            f"has {len(problems)}"
        )
    passes = np.bincount(found.prompt, found.passes, len(problems))
    trials = np.bincount(found.prompt, found.trials, len(problems))
    rate = np.where(trials > 0, passes / np.maximum(trials, 1), 0.5)
    return _rows((100 * (1 - rate)).astype(np.float32))


def _rows(values: np.ndarray) -> RowData:
    """Values for a pool that may be filled up with rows that are never drawn, or for its start."""
    return lambda rows: jnp.asarray(np.pad(values, (0, max(rows - len(values), 0)))[:rows])
