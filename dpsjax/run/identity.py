"""What makes a run another than the next: its data, weights, settings, and switches of JAX."""

import enum
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from dpsjax.run.config import TrainConfig, to_dict
from dpsjax.run.language import folder_digest
from dpsjax.run.setup import Run, weights_path

# Settings that do not change what a step computes; all others must be those of the checkpoint.
# The weights are compared, not what they are called.
FREE = (
    "steps",
    "out",
    "mesh",
    "checkpoint",
    "evaluation.every",
    "responses",
    "model.init",
    "selector.around.difficulty",
    "rollout.workers",
    "rollout.seconds",
)

# Inputs that a record names by their content, for whoever repeats the run elsewhere.
INPUTS = ("data", "weights", "difficulty")

# Switches of JAX that change what is computed.
_SWITCHES = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
# Options of XLA that say where and what is written, not what is computed.
_HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump")


def identity(run: Run) -> dict[str, Any]:
    """What makes this run another than the next: data, weights and every setting that counts.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.

    Returns:
        a flat JSON-serialisable dictionary; nested settings have dots in their names.
    """
    return {
        "data": run.task.fingerprint(),
        "policy": _digest(str(sorted(run.policy.to_dict().items()))),
        "weights": _weights(run.config),
        **run.task.inputs,
        "difficulty": _file_digest(run.config.selector.around.difficulty),
        **{f"jax.{name}": value for name, value in switches().items()},
        **{
            name: value
            for name, value in _flat(to_dict(run.config)).items()
            if not _below(name, FREE)
        },
    }


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], allow: Sequence[str] = ()
) -> list[str]:
    """What differs between two identities.

    Args:
        saved: of the checkpoint.
        now: of this run.
        allow: names that may differ; ``grpo`` stands for all names that begin with ``grpo.``.

    Returns:
        one line for each.

    >>> differences({"data": "a", "seed": 0}, {"data": "b", "seed": 1}, allow=["seed"])
    ["data: 'a' in the checkpoint, 'b' now"]
    """
    missing = "nothing"
    lines = []
    for name in sorted({*saved, *now}):
        old, new = saved.get(name, missing), now.get(name, missing)
        if old != new and not _below(name, allow):
            lines.append(f"{name}: {old!r} in the checkpoint, {new!r} now")
    return lines


def switches() -> dict[str, Any]:
    """Switches of JAX and options of XLA that change what is computed, as they are now."""
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if flag.startswith("--xla_") and not flag.startswith(_HARMLESS)
    ]
    values = {name: getattr(jax.config, name) for name in _SWITCHES}
    plain = {n: v.value if isinstance(v, enum.Enum) else v for n, v in values.items()}
    return {**plain, "xla_flags": sorted(flags)}


def require_inputs(run: Run, recorded: Mapping[str, Any]) -> None:
    """Refuse to repeat a run with other data or weights than it had.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        recorded: the digests in its ``config.json``; empty for a run that repeats none.

    Raises:
        ValueError: an input has another content.
    """
    if not recorded:
        return
    now = identity(run)
    names = dict.fromkeys((*INPUTS, *recorded, *run.task.inputs))
    other = [name for name in names if recorded.get(name) != now.get(name)]
    if other:
        raise ValueError(
            f"the {' and the '.join(other)} of this run are not those of the record "
            f"(model.init={run.config.model.init!r}): their content has changed; put back what the "
            "run was made from, or leave out --from and give the settings"
        )


def _weights(config: TrainConfig) -> str:
    """Which weights the run began with; a KL penalty refers to them to the end."""
    path = weights_path(config)
    if path is None:
        return "random"
    return folder_digest(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, in the values that JSON gives back."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _below(name: str, tops: Sequence[str]) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def _file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
