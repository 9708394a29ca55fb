"""Every task by its name on the command line, and those of others by ``module:Class``."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from dpsjax import checks
from dpsjax.tasks.base import TaskSettings
from dpsjax.tasks.operators import LEARNING_RATE


class Entry(NamedTuple):
    """A task.

    Attributes:
        name: On the command line.
        place: ``module:Class`` of its settings.
        summary: A line of help.
        run: Settings of a run that differ from the general ones for this task, nested by section.
    """

    name: str
    place: str
    summary: str
    run: Mapping[str, Any] = {}


ENTRIES = (
    Entry(
        "countdown",
        "dpsjax.tasks.countdown:CountdownConfig",
        "finetune a policy on Countdown, its prompts chosen by a selector",
    ),
    Entry(
        "operators",
        "dpsjax.tasks.operators:OperatorsConfig",
        "the same on made-up operators, where every pass rate is known exactly",
        {"steps": 200, "grpo": {"learning_rate": LEARNING_RATE}},
    ),
    Entry(
        "math",
        "dpsjax.tasks.math:MathConfig",
        "mathematics from files, graded by math-verify",
        {"rollout": {"seconds": 10.0}},
    ),
    Entry(
        "geometry",
        "dpsjax.tasks.geometry:GeometryConfig",
        "geometry diagrams, read by a policy that sees",
        {"steps": 200, "grpo": {"learning_rate": 5e-4}},
    ),
    Entry(
        "geometry3k",
        "dpsjax.tasks.geometry3k:Geometry3kConfig",
        "school geometry with diagrams from files, for a Qwen2.5-VL",
        {"rollout": {"seconds": 10.0}},
    ),
    Entry(
        "gym",
        "dpsjax.tasks.gym:GymConfig",
        "procedural tasks of reasoning-gym, by name",
    ),
    Entry(
        "jsonl",
        "dpsjax.tasks.jsonl:JsonlConfig",
        "your own problems, from files, and your own reward functions",
    ),
)


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Args:
        name: of one of :data:`ENTRIES`, or ``module:Class`` of a :class:`TaskSettings`.

    Raises:
        ValueError: there is none.

    >>> entry_of("operators").run["steps"]
    200
    """
    checks.require_type(str, "the name of a task", name=name)
    for entry in ENTRIES:
        if name in (entry.name, entry.place):
            return entry
    if ":" not in name:
        known = ", ".join(entry.name for entry in ENTRIES)
        raise ValueError(f"task={name!r} is not known: use one of {known}, or module:Class")
    return Entry(name, name, "a task of one's own")


def settings_type(name: str) -> type[TaskSettings]:
    """The settings of a task.

    Args:
        name: as for :func:`entry_of`.

    Raises:
        ValueError: there is no such task, or its module cannot be imported.
    """
    place = entry_of(name).place
    found = load(place, "task")
    if not (isinstance(found, type) and issubclass(found, TaskSettings)):
        raise ValueError(f"task={place!r} is no class below dpsjax.tasks.base.TaskSettings")
    return found


def name_of(settings: TaskSettings) -> str:
    """What ``dpsjax train`` calls a task.

    >>> from dpsjax.tasks.operators import OperatorsConfig
    >>> name_of(OperatorsConfig())
    'operators'
    """
    kind = type(settings)
    return entry_of(f"{kind.__module__}:{kind.__qualname__}").name


def load(place: str, setting: str) -> Any:
    """What ``module:name`` means; modules of the current folder are found too.

    Args:
        place: the words.
        setting: for messages.

    Returns:
        the object.

    Raises:
        ValueError: the form is another, or the module or the name is not there.
    """
    module, colon, name = place.partition(":")
    if not colon or not module or not name or module.endswith(".py"):
        raise ValueError(
            f"{setting}={place!r} must be like my_module:name, for the name in my_module.py"
        )
    if (folder := os.getcwd()) not in sys.path:  # a console script does not look there by itself
        sys.path.append(folder)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # of whatever the module does
        raise ValueError(
            f"{setting}={place!r}: the module {module!r} cannot be imported "
            f"({type(error).__name__}: {error}); it must be in {folder} or on PYTHONPATH"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{setting}={place!r}: there is no {name!r} in {module}")
        found = getattr(found, part)
    return found
