"""Settings of the published runs, by name, for ``dpsjax train TASK --preset NAME``.

The values are those of the scripts that DPS was released with (github.com/maoyixiu/DPS,
``recipe/dps/scripts``). What all scripts share is the default of :class:`dpsjax.grpo.GRPOConfig`:
learning rate 1e-6, clipping at 0.2 and 0.28, no warm-up. Their prompts' limits have no setting
here: no prompt is cut.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpsjax import checks
from dpsjax.tasks.countdown import CD4, CD34


class Preset(NamedTuple):
    """Settings of a published run.

    Attributes:
        task: As ``dpsjax train`` calls it.
        model: That was trained.
        script: Where the values stand, below ``recipe/dps/scripts`` of the release; "" for a pool
            of problems alone.
        values: Nested by section, as in ``config.json``.
    """

    task: str
    model: str
    script: str
    values: Mapping[str, Any]


def _run(
    steps: int,
    prompts: int,
    mini_batch: int,
    decay: float,
    every: int,
    response_tokens: int,
    kl: float = 0.0,
    task: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """What differs between the scripts; groups of 8, evaluated 16 times at temperature 0.6."""
    return {
        "steps": steps,
        "rollout": {"prompts": prompts, "temperature": 1.0},
        "grpo": {
            "learning_rate": 1e-6,
            "rollouts_per_prompt": 8,
            "mini_batch": mini_batch,
            "loss": {"kl_coefficient": kl},
        },
        "selector": {"name": "dps", "decay": decay},
        "task": {"response_tokens": response_tokens, **task},
        "evaluation": {"every": every, "samples": 16, "temperature": 0.6},
        "checkpoint": {"every": every},
    }


_MATH = {"prompts": 256, "mini_batch": 128, "decay": 0.7, "every": 5, "response_tokens": 8192}
_COUNTDOWN = _run(120, 256, 64, 0.5, 10, 1024, task={"problems": 2000, "held_out": 1000, **CD34})
_GEOMETRY = {"prompts": 512, "mini_batch": 256, "decay": 0.5, "every": 10, "response_tokens": 1024}

PRESETS: Mapping[str, Preset] = {
    "dps-math-1.5b": Preset(
        "math",
        "DeepSeek-R1-Distill-Qwen-1.5B",
        "math/math_verl_1.5b_dps.sh",
        _run(360, **_MATH),
    ),
    "dps-math-7b": Preset(
        "math",
        "DeepSeek-R1-Distill-Qwen-7B",
        "math/math_verl_7b_dps.sh",
        _run(130, **_MATH),
    ),
    "dps-countdown-3b": Preset(
        "countdown", "Qwen2.5-3B", "countdown/cd_verl_3b_dps.sh", _COUNTDOWN
    ),
    "dps-countdown-7b": Preset(
        "countdown", "Qwen2.5-7B", "countdown/cd_verl_7b_dps.sh", _COUNTDOWN
    ),
    "dps-geo3k-3b": Preset(
        "geometry3k",
        "Qwen2.5-VL-3B-Instruct",
        "geo3k/geo_verl_3b_dps.sh",
        _run(120, kl=0.01, **_GEOMETRY),
    ),
    "dps-geo3k-7b": Preset(
        "geometry3k",
        "Qwen2.5-VL-7B-Instruct",
        "geo3k/geo_verl_7b_dps.sh",
        _run(80, kl=0.03, **_GEOMETRY),
    ),
    "cd34": Preset("countdown", "any", "", {"task": {"problems": 2000, "held_out": 1000, **CD34}}),
    "cd4": Preset("countdown", "any", "", {"task": {"problems": 2000, "held_out": 1000, **CD4}}),
}


def preset_of(name: str, task: str) -> Preset:
    """A preset of a task.

    Args:
        name: of :data:`PRESETS`.
        task: as ``dpsjax train`` calls it.

    Raises:
        ValueError: there is none of this name, or it is of another task.
    """
    checks.require_type(str, "the name of a task", task=task)
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is not known: use one of {', '.join(PRESETS)}")
    found = PRESETS[name]
    if found.task != task:
        own = ", ".join(other for other, preset in PRESETS.items() if preset.task == task)
        raise ValueError(
            f"preset={name!r} is of dpsjax train {found.task}; {task} has {own or 'none'}"
        )
    return found


def described() -> str:
    """The presets in a line of help."""
    return "; ".join(
        f"{name} ({preset.task}, {preset.model})" if preset.script else f"{name} ({preset.task})"
        for name, preset in PRESETS.items()
    )


def resolved(name: str, config: Mapping[str, Any]) -> str:
    """The settings of a preset as a run has them, options that were typed included.

    Args:
        name: of :data:`PRESETS`.
        config: of :func:`dpsjax.run.config.to_dict`.

    >>> resolved("cd4", {"task": {"problems": 8}})[:35]
    'preset cd4: task.problems=8, task.h'
    """
    preset = PRESETS[name]
    shown = []
    for path in _paths(preset.values):
        section: Any = config
        for part in path:
            section = section.get(part, "-") if isinstance(section, Mapping) else "-"
        shown.append(f"{'.'.join(path)}={section}")
    script = f" ({preset.model}; recipe/dps/scripts/{preset.script} of DPS)"
    return f"preset {name}{script if preset.script else ''}: {', '.join(shown)}"


def _paths(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Where each of nested settings stands."""
    found: list[tuple[str, ...]] = []
    for name, value in values.items():
        inner = _paths(value) if isinstance(value, Mapping) else [()]
        found += [(name, *path) for path in inner]
    return found


def table() -> str:
    """Every preset with what it sets, in Markdown."""
    paths = list(
        dict.fromkeys(path for preset in PRESETS.values() for path in _paths(preset.values))
    )
    lines = ["| setting | " + " | ".join(f"`{name}`" for name in PRESETS) + " |"]
    lines.append("|---" * (len(PRESETS) + 1) + "|")
    lines.append("| task | " + " | ".join(preset.task for preset in PRESETS.values()) + " |")
    lines.append("| model | " + " | ".join(preset.model for preset in PRESETS.values()) + " |")
    for path in paths:
        cells = [_shown(preset.values, path) for preset in PRESETS.values()]
        lines.append(f"| `{'.'.join(path)}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(values: Any, path: tuple[str, ...]) -> str:
    """What a preset sets, "" where it leaves the default."""
    for part in path:
        values = values.get(part, {})
    return "" if values == {} else str(values)
