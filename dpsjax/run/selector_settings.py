"""Selectors as settings, made from the catalogue: a recipe's keywords are the options of a command.

What an option is called, what it defaults to and its help are the recipe's own (its signature and
docstring); nothing stands here a second time.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import docstring_parser
import numpy as np
import tyro

from dpsjax.checks import require_counts
from dpsjax.selectors import Selector, chain
from dpsjax.selectors.around import KEYWORDS, surround
from dpsjax.selectors.catalogue import catalogue, entry_of
from dpsjax.selectors.entry import Entry, without_roles
from dpsjax.tasks.base import Problem
from dpsjax.tasks.features import prompt_features
from dpsjax.tasks.traces import read_trace

DEFAULT = "frontier"  # of a run; experiments/REPORT.md says why, and where not
# Keywords that a run knows by itself.
KNOWN = ("group", "num_categories")
PLAIN = (bool, int, float, str)


def _helps(function: Any) -> dict[str, str]:
    """What a docstring says of each argument."""
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    texts = {item.arg_name: item.description or "" for item in documented.params}
    return {name: without_roles(" ".join(text.split())) for name, text in texts.items()}


_AROUND, _AROUND_HELPS = inspect.signature(surround).parameters, _helps(surround)


def _help(name: str) -> Any:
    return tyro.conf.arg(help=_AROUND_HELPS[name])


def _default(name: str) -> Any:
    return _AROUND[name].default


@dataclasses.dataclass(frozen=True)
class Around:
    """Combinators around a selector, see :func:`dpsjax.selectors.surround`; none by default."""

    cool_down: Annotated[int, _help("cool_down")] = _default("cool_down")
    mix_uniform: Annotated[float, _help("mix_uniform")] = _default("mix_uniform")
    revisit_after: Annotated[int, _help("revisit_after")] = _default("revisit_after")
    revisit_share: Annotated[float, _help("revisit_share")] = _default("revisit_share")
    stratify: bool = False
    """Give each source of prompts the share of the batch that it has of the pool."""
    difficulty: Path | None = None
    """A trace.jsonl whose pass rates say how difficult the prompts are, for selectors that go by
    it; the order of the sources by default."""

    def __post_init__(self):
        self.surrounding(chain())

    def surrounding(self, selector: Selector, shares: Sequence[int] | None = None) -> Selector:
        """The selector with these combinators.

        Args:
            selector: a recipe or a chain.
            shares: of the batch, for each source of prompts, where they are asked for.

        Raises:
            TypeError: a setting is no number.
            ValueError: a setting is out of its range.
        """
        own = {name: value for name, value in vars(self).items() if name in KEYWORDS}
        return surround(selector, **{**own, "stratify": shares if self.stratify else None})


@dataclasses.dataclass(frozen=True)
class SelectorSettings:
    """Settings of one selector; a subclass for each entry has its keywords as fields."""

    ENTRY: ClassVar[Entry]

    max_rounds: int | None = 1
    """Rounds of rollouts that a step may take to fill its batch with accepted groups; None for as
    many as it takes, but no more than ask the whole pool once."""
    around: Annotated[Around, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Around)

    def __post_init__(self):
        if self.max_rounds is not None:
            require_counts(max_rounds=self.max_rounds)

    @property
    def name(self) -> str:
        """As ``--selector`` calls it."""
        return self.ENTRY.name

    def keywords(self) -> dict[str, Any]:
        """What the recipe is called with, selectors inside it made."""
        own = {item.name for item in dataclasses.fields(SelectorSettings)}
        chosen = {name: value for name, value in vars(self).items() if name not in own}
        if isinstance(chosen.get("inner"), str):
            chosen["inner"] = settings(chosen["inner"]).recipe(KNOWN_OF_NO_RUN)
        return chosen

    def recipe(self, known: dict[str, Any]) -> Selector:
        """The recipe's selector, without combinators.

        Args:
            known: what the run knows: :data:`KNOWN`.
        """
        return self.ENTRY.build(known, **self.keywords())

    def build(self, problems: Sequence[Problem], group: int) -> Selector:
        """The selector with its combinators, for a pool of problems.

        Args:
            problems: the pool.
            group: G, rollouts of a prompt.
        """
        kinds = _places(problems)
        known = {"group": group, "num_categories": int(kinds.max()) + 1}
        return self.around.surrounding(self.recipe(known), np.bincount(kinds).tolist())

    def data(self, problems: Sequence[Problem], rows: int) -> dict[str, np.ndarray]:
        """What is known of every prompt, for ``selector.init``; see :func:`prompt_data`."""
        wanted = "features" in self.ENTRY.needs
        return prompt_data(problems, rows, self.around.difficulty, wanted)

    def screening(self) -> tuple[int, int] | None:
        """Rollouts of a screening and of those that follow it, if there is one."""
        names = self.ENTRY.screen
        return None if names is None else (vars(self)[names[0]], vars(self)[names[1]])

    def most_rollouts(self) -> int | None:
        """Most rollouts of one prompt where they are allocated, else None."""
        return None if self.ENTRY.most is None else vars(self)[self.ENTRY.most]


KNOWN_OF_NO_RUN: dict[str, Any] = {"group": 8, "num_categories": 2}


def prompt_data(
    problems: Sequence[Problem], rows: int, trace: Path | None = None, features: bool = False
) -> dict[str, np.ndarray]:
    """What is known of every prompt before training, by column.

    Args:
        problems: the pool.
        rows: of the selector's state; those beyond the pool repeat its first prompt.
        trace: recorded rollouts of the same pool; a prompt's difficulty is the share that failed,
            in per cent, and 50 for prompts that are not in it. Without, it is the place of the
            prompt's source in alphabetical order, which for Countdown is how many numbers it has.
        features: whether to count what the prompts' texts are made of.

    Returns:
        ``source`` int32[rows], ``difficulty`` float32[rows] in [0, 100], and if asked for
        ``features`` float32[rows, F] of :func:`dpsjax.tasks.features.prompt_features`.

    Raises:
        ValueError: the trace is of another pool.
        OSError: it cannot be read.
    """
    place = _places(problems)
    difficulty = 100 * place / max(int(place.max()), 1)
    if trace is not None:
        found = read_trace(trace)
        if found.num_prompts != len(problems):
            raise ValueError(
                f"difficulty={str(trace)!r} is of a pool of {found.num_prompts} prompts, and this "
                f"one has {len(problems)}"
            )
        passes = np.bincount(found.prompt, found.passes, len(problems))
        trials = np.bincount(found.prompt, found.trials, len(problems))
        difficulty = 100 * (1 - np.where(trials > 0, passes / np.maximum(trials, 1), 0.5))
    of_row = np.where(np.arange(rows) < len(problems), np.arange(rows), 0)
    known = {
        "source": place[of_row].astype(np.int32),
        "difficulty": difficulty[of_row].astype(np.float32),
    }
    return known | ({"features": prompt_features(problems)[of_row]} if features else {})


def _places(problems: Sequence[Problem]) -> np.ndarray:
    """The source of each prompt, as its place in alphabetical order."""
    return np.unique([problem.source for problem in problems], return_inverse=True)[1]


def settings(name: str, **changes: Any) -> SelectorSettings:
    """The settings called ``name``.

    Args:
        name: as ``--selector`` takes it.
        **changes: keywords of the recipe, ``max_rounds``, and those of :class:`Around`; the rest
            keep their defaults.

    Raises:
        ValueError: there is no such selector, or a setting is out of range.
        TypeError: there is no such setting.

    >>> settings("dps").decay, settings("dps", cool_down=3).around.cool_down
    (0.5, 3)
    """
    combinators = {item.name for item in dataclasses.fields(Around)}
    around = Around(**{key: value for key, value in changes.items() if key in combinators})
    own = {key: value for key, value in changes.items() if key not in combinators}
    return _type_of(entry_of(name).name)(around=around, **own)


def selector_names() -> tuple[str, ...]:
    """Every name that ``--selector`` takes.

    >>> selector_names()[:3]
    ('uniform', 'uniform-epochs', 'dps')
    """
    return tuple(catalogue())


@functools.cache
def _type_of(name: str) -> type[SelectorSettings]:
    entry = entry_of(name)
    fields: list[tuple[str, Any, Any]] = [
        (option, Annotated[kind, tyro.conf.arg(help=text)], default)
        for option, (kind, default, text) in _options(entry).items()
    ]
    taken = [option for option, *_ in fields if hasattr(SelectorSettings, option)]
    if taken:
        raise ValueError(f"{name}: settings have another meaning for the keywords {taken}")
    fields.append(("max_rounds", int | None, entry.rounds))
    title = "".join(word.capitalize() for word in name.split("-"))
    made = dataclasses.make_dataclass(title, fields, bases=(SelectorSettings,), frozen=True)
    made.ENTRY, made.__doc__ = entry, without_roles(inspect.getdoc(entry.recipe) or "")
    made.__module__ = __name__
    return made


def _options(entry: Entry) -> dict[str, tuple[Any, Any, str]]:
    """Type, default and help of the keywords that can be typed."""
    helps = _helps(entry.recipe)
    hints = typing.get_type_hints(entry.recipe)
    found = {}
    for name, default in entry.defaults().items():
        kind = entry.options.get(name, _kind(default, hints.get(name)))
        if name == "inner":
            kind = typing.Optional[Literal[_inner_names()]]  # noqa: UP045 - not a type yet
        if kind is not None and name not in KNOWN:
            found[name] = (kind, default, helps.get(name, ""))
    return found


def _inner_names() -> tuple[str, ...]:
    """Selectors that can stand inside another: that draw prompts and need no data."""
    entries = catalogue().values()
    return tuple(e.name for e in entries if "inner" not in e.defaults() and not e.needs)


def _kind(default: Any, hint: Any) -> Any:
    """The type of an option; None for what cannot be typed, such as a function."""
    if hint is not None and _plain(hint):
        return hint
    if isinstance(default, PLAIN):
        return type(default)
    if isinstance(default, tuple) and default and all(isinstance(x, PLAIN) for x in default):
        return tuple[tuple(type(x) for x in default)]
    return None


def _plain(hint: Any) -> bool:
    """Whether a type hint is made of plain types alone."""
    if typing.get_origin(hint) is Literal:
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return all(_plain(part) for part in typing.get_args(hint) if part is not Ellipsis)
    return hint in (*PLAIN, Path, type(None))
