"""The layout of a run's settings: as it is set, or as planning finds it for the devices."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import jax

from dpsjax.loop.build import Spec
from dpsjax.loop.prompts import seen_by
from dpsjax.plan.chips import CHIPS, Slice
from dpsjax.plan.choose import choose
from dpsjax.plan.job import Axes, Job
from dpsjax.run.config import TrainConfig
from dpsjax.run.sections import MeshConfig
from dpsjax.run.setup import build_task, mesh_axes, policy_of, spec_of

__all__ = ["auto_layout", "chosen", "slice_at_hand", "spec_and_axes"]

_KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def spec_and_axes(config: TrainConfig, devices: int) -> tuple[Spec, Axes]:
    """The step of a run's settings, and their mesh.

    Args:
        config: the settings.
        devices: how many there are.

    Returns:
        what :func:`dpsjax.run.setup.prepare` would build; nothing is loaded.

    Raises:
        ValueError: settings that do not fit each other or the devices.
        OSError: a file that a setting names cannot be read.
    """
    return _spec(config), Axes(*mesh_axes(config.mesh, devices))


def _spec(config: TrainConfig) -> Spec:
    task = build_task(config, scored=False)
    policy = policy_of(config, task)
    task, sight = seen_by(policy.vision, task)
    return spec_of(config, task, policy, sight)


def chosen(config: TrainConfig, where: Slice, **fixed: Any) -> TrainConfig:
    """The settings with the mesh, the micro-batch and the waves that planning finds.

    Args:
        config: the settings; what they set already stays.
        where: the devices.
        **fixed: of :func:`dpsjax.plan.choose.choose`, in place of those of the settings.

    Returns:
        the settings.

    Raises:
        ValueError: nothing divides the step over the devices.
        OSError: a file that a setting names cannot be read.
    """
    mesh, model, grpo = config.mesh, config.model, config.grpo
    given = {
        "data": mesh.data or None,
        "fsdp": mesh.fsdp if mesh.fsdp > 1 else None,
        "tensor": mesh.tensor if mesh.tensor > 1 else None,
        "micro_batch": grpo.micro_batch,
        "waves": model.waves if model.waves > 1 else None,
    }
    job = choose(Job(_spec(config), Axes(1, 1, 1)), where, **{**given, **fixed})
    whole = job.micro_batch == job.mini_batch * job.group
    return dataclasses.replace(
        config,
        mesh=MeshConfig(**job.axes._asdict()),
        model=dataclasses.replace(model, waves=job.spec.compute.waves),
        # None for a whole mini-batch, which it then is on other devices too
        grpo=dataclasses.replace(grpo, micro_batch=None if whole else job.micro_batch),
    )


def auto_layout(config: TrainConfig, restart: bool = False) -> tuple[TrainConfig, str]:
    """``--layout auto``: what planning finds for the devices at hand.

    Args:
        config: the settings. A run in their folder goes on with its own micro-batch and waves, on
            a mesh of the devices there are now.
        restart: the run in the folder does not go on.

    Returns:
        the settings, and a sentence that says what was chosen.

    Raises:
        ValueError: nothing divides the step over the devices.
        OSError: a file of the settings, or the record of the earlier run, cannot be read.
    """
    devices = jax.devices()
    if len(devices) == 1 and devices[0].platform == "cpu":
        return config, "layout: one CPU device, on which there is nothing to lay out"
    fixed = {} if restart else _of_earlier(config)
    if slices := len({getattr(device, "slice_index", 0) for device in devices}) - 1:
        fixed["data"] = config.mesh.data or slices + 1
    config = chosen(config, slice_at_hand(devices), **fixed)
    mesh, micro = config.mesh, config.grpo.micro_batch
    part = "whole mini-batches" if micro is None else f"micro-batches of {micro} sequences"
    return config, (
        f"layout: mesh.data={mesh.data} mesh.fsdp={mesh.fsdp} mesh.tensor={mesh.tensor} on "
        f"{len(devices)} devices ({devices[0].device_kind}), {part}, waves {config.model.waves}"
    )


def _of_earlier(config: TrainConfig) -> dict[str, int]:
    """What a run in the folder was trained with, which its continuation must be too."""
    path = config.folder() / "config.json"
    if not path.is_file():
        return {}
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["config"]
        waves, micro = recorded["model"]["waves"], recorded["grpo"]["micro_batch"]
    except (ValueError, KeyError, TypeError):
        return {}  # no record of a run; whoever opens the folder says so
    return {"waves": waves, "micro_batch": micro or 0}


def slice_at_hand(devices: Sequence[Any]) -> Slice:
    """Devices as planning knows them.

    Args:
        devices: all of them, of one kind.

    Returns:
        a slice. Of kinds that are not in the table the memory is asked for, and the rest, which
        ranks layouts, is taken in proportion to v5e.
    """
    kind = devices[0].device_kind
    name = _KINDS.get(kind)
    chip = CHIPS["v5e"]._replace(name=kind, usable_bytes=_memory(devices))
    return Slice(chip if name is None else CHIPS[name], str(len(devices)), len(devices))


def _memory(devices: Sequence[Any]) -> int:
    """Bytes of one device."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    found = (local or devices)[0].memory_stats() or {}
    if "bytes_limit" in found:
        return int(found["bytes_limit"])
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // max(len(local), 1)  # the host's, which its devices share
