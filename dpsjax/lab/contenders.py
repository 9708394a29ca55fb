"""Contenders: selectors and how their rollouts are made, by the names of the catalogue.

In Python no name is needed: pass a dictionary of your own selectors to
:func:`dpsjax.lab.compare.compare`.
"""

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

from dpsjax import checks
from dpsjax.lab.students import TOPICS
from dpsjax.selectors import Entry, Selector, catalogue
from dpsjax.selectors.around import KEYWORDS
from dpsjax.selectors.base import GROUP


class Contender(NamedTuple):
    """A selector and how it is used."""

    selector: Selector
    # Waves for an update, at most: more than 1 collect accepted groups, None until there are B.
    rounds: int | None = 1
    # Rollouts that decide whether a prompt gets the rest, and the rest; None: all at once.
    screen: tuple[int, int] | None = None
    # Rollouts of one prompt, at most, where the selector allocates; None: all prompts get G.
    most: int | None = None
    oracle: bool = False  # the selector's scores are added to the true chance of a mixed group


def named() -> dict[str, tuple[Entry, Mapping[str, Any]]]:
    """Every recipe at its defaults, each followed by its variants: name -> entry and keywords.

    >>> list(named())[:4]
    ['uniform', 'uniform-epochs', 'dps', 'dps-0.2']
    """
    found: dict[str, tuple[Entry, Mapping[str, Any]]] = {}
    for name, entry in catalogue().items():
        found[name] = entry, {}
        found.update({variant: (entry, words) for variant, words in entry.variants.items()})
    return found


def looked_up(name: str) -> tuple[Entry, Mapping[str, Any]]:
    """What is called ``name``, a recipe or a variant of one, with settings or without.

    Args:
        name: as ``dps``, ``dps-cool`` or ``dps:decay=0.7,cool_down=12``; values are literals of
            Python.

    Returns:
        the entry and the recipe's keywords.

    Raises:
        TypeError: the name is no text.
        ValueError: nothing is called so, or it has no such setting; the message lists what there
            is.

    >>> looked_up("dps-cool:decay=0.7")[1]["decay"]
    0.7
    """
    checks.require_type(str, "a name", selector=name)
    known, (kind, _, text) = named(), name.partition(":")
    if kind not in known:
        raise ValueError(f"selector={name!r} must be one of {', '.join(known)}")
    entry, words = known[kind]
    typed, settings = {}, (*entry.defaults(), *KEYWORDS)
    for pair in text.split(",") if text else ():
        key, _, value = pair.partition("=")
        if key not in settings:
            raise ValueError(f"selector={name!r}: {key!r} must be one of {', '.join(settings)}")
        try:
            typed[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ValueError(
                f"selector={name!r}: {key}={value} must be a number, True, False or a 'word'"
            ) from None
    return entry, {**words, **typed}


def contender(name: str, group: int = GROUP, num_categories: int = TOPICS) -> Contender:
    """The contender called ``name``.

    Args:
        name: of a recipe or a variant.
        group: G rollouts, for recipes that ask for it.
        num_categories: of prompts, in the column ``source`` of the data, for those that ask.

    Returns:
        the contender.

    Raises:
        ValueError: as :func:`looked_up` does.

    >>> contender("dps-cool").rounds
    1
    """
    entry, words = looked_up(name)
    known = {"group": group, "num_categories": num_categories}
    if "inner" in words:  # a recipe of the catalogue, by its name
        words = {**words, "inner": looked_up(words["inner"])[0].build(known)}
    value = {**entry.defaults(), **words}
    return Contender(
        entry.build(known, **words),
        rounds=entry.rounds,
        screen=None if entry.screen is None else (value[entry.screen[0]], value[entry.screen[1]]),
        most=None if entry.most is None else value[entry.most],
    )
