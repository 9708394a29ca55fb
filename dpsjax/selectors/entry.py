"""What the catalogue knows of a recipe beside its signature and docstring."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from dpsjax.selectors.around import KEYWORDS, surround
from dpsjax.selectors.base import Selector


@dataclasses.dataclass(frozen=True)
class Entry:
    """A recipe as the command line, the laboratory and "selectors by paper" see it.

    Attributes:
        recipe: keyword hyperparameters, each with a default and a line in the docstring; what they
            are called and what they default to is taken from there.
        paper: arXiv id or venue; nothing for baselines and what was not published.
        rounds: rounds of rollouts that a step may take to fill its batch with accepted groups; 1
            where it is not refilled, None for as many as it takes.
        screen: the recipe's keywords for the rollouts of a screening and for those that follow it
            where a group was accepted; nothing where all are made at once.
        most: the recipe's keyword for the most rollouts of one prompt, where they are allocated.
        needs: columns of data that every prompt must have (see :func:`prompt_data`).
        options: types of keywords whose default does not show it, such as ``float | None``.
        variants: further names in the laboratory, each with its keywords: of the recipe, or of
            :func:`dpsjax.selectors.surround`.
    """

    recipe: Callable[..., Selector]
    paper: str = ""
    rounds: int | None = 1
    screen: tuple[str, str] | None = None
    most: str | None = None
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """As on the command line: ``history_resampling`` is called ``history-resampling``."""
        return self.recipe.__name__.replace("_", "-")

    def defaults(self) -> dict[str, Any]:
        """The recipe's keywords and their defaults."""
        parameters = inspect.signature(self.recipe).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}

    def build(self, known: Mapping[str, Any] | None = None, **keywords: Any) -> Selector:
        """The selector.

        Args:
            known: what a run knows and a recipe may ask for, such as ``group``: used for keywords
                of that name that are not given.
            **keywords: of the recipe, or else of :func:`dpsjax.selectors.surround`.
        """
        own = self.defaults()
        asked = {name: value for name, value in (known or {}).items() if name in own}
        outer = {n: value for n, value in keywords.items() if n in KEYWORDS and n not in own}
        inner = {n: value for n, value in keywords.items() if n not in outer}
        return surround(self.recipe(**{**asked, **inner}), **outer)


def without_roles(text: str) -> str:
    """A docstring's text without the roles of reStructuredText: only the names stay.

    >>> without_roles("see :func:`dpsjax.hmm.params`")
    'see `hmm.params`'
    """
    return re.sub(r":\w+:`~?(?:dpsjax\.)?([^`]*)`", r"`\1`", text).replace("``", "`")
