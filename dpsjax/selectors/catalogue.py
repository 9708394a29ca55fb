"""Every recipe of the library, found in the files that hold them: no list to keep."""

import functools
import importlib
import pkgutil

from dpsjax.selectors import contrib, frontier, recipes
from dpsjax.selectors.entry import Entry


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Entries by name: the baselines first, then the field in the order of its files' names.

    >>> list(catalogue())[:3]
    ['uniform', 'uniform-epochs', 'dps']
    """
    files = sorted(module.name for module in pkgutil.iter_modules(contrib.__path__))
    modules = [
        recipes,
        frontier,
        *(importlib.import_module(f"{contrib.__name__}.{name}") for name in files),
    ]
    entries = [entry for module in modules for entry in module.ENTRIES]
    return {entry.name: entry for entry in entries}


def entry_of(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    entries = catalogue()
    if name not in entries:
        raise ValueError(f"selector={name!r} is not known: use one of {', '.join(entries)}")
    return entries[name]
