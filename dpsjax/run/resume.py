"""Continuing a run: what must be the same, where it stands, and where to go on."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.experimental import multihost_utils

from dpsjax.loop.state import TrainState
from dpsjax.run import checkpoint, outputs
from dpsjax.run.checkpoint import Damaged, Meta
from dpsjax.run.identity import differences, identity
from dpsjax.run.position import FORMAT, Position, check_lines, position_of, wrong_with
from dpsjax.run.processes import from_first
from dpsjax.run.seal import damage
from dpsjax.run.setup import Run


class Resumed(NamedTuple):
    """A run to continue.

    Attributes:
        state: after the step of ``position``.
        position: where it stands.
        notices: sentences for the user.
    """

    state: TrainState
    position: Position
    notices: tuple[str, ...]


def resume(run: Run, state: TrainState, folder: Path, allow: Sequence[str] = ()) -> Resumed:
    """Go back to the last good checkpoint of a run, if it has any.

    Damaged checkpoints that are newer are renamed. ``metrics.jsonl`` is cut to the lines that the
    checkpoint has seen: the steps after it will be made, and written, again.

    All processes must call this together. The first one looks and changes files; all of them read
    the arrays, so the folder must be one that all hosts see.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        state: its first state.
        folder: DIR.
        allow: differences to accept, see :func:`differences`.

    Returns:
        where to go on. A run that was killed before its first checkpoint begins anew, and a notice
        says so; anything more than that is moved aside first.

    Raises:
        ValueError: it was another run; no checkpoint is good; or the metrics are not those of the
            checkpoint.
    """
    found = from_first(lambda: _look(run, folder, allow))
    if not found["path"]:
        return Resumed(state, Position(), tuple(found["notices"]))
    good, position = Path(found["path"]), Position(*found["position"])
    try:
        size = len(run.task.train)
        state = checkpoint.read_state(good, state, run.stages.axes, found["pool_rows"], size)
    # Orbax and TensorStore raise errors of many kinds when arrays do not fit.
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        text = str(error).strip() or repr(error)
        raise ValueError(
            f"the arrays in {good} do not fit this run ({text.splitlines()[0][:300]}): repeat the "
            "settings of the run that wrote them, choose another --out, or begin anew with "
            "--restart"
        ) from error
    # One process changes files, once all of them have read.
    multihost_utils.sync_global_devices("dpsjax: the checkpoint is read")
    damaged = [Damaged(Path(path), reason) for path, reason in found["damaged"]]
    notices = from_first(lambda: _tidy(folder, position, damaged))
    notices.append(f"continuing after step {position.step}, from {good}")
    return Resumed(state, position, tuple(notices))


def _look(run: Run, folder: Path, allow: Sequence[str]) -> dict[str, Any]:
    """Find the checkpoint to go on from, and make sure that it is one of this run."""
    steps = folder / outputs.CHECKPOINTS
    good, damaged = checkpoint.last_good(steps, _unusable)
    if good is None:
        if damaged:
            raise ValueError(_no_good(steps, damaged))
        return {"path": "", "notices": _begin_anew(run, folder)}
    meta = checkpoint.read_meta(good)
    different = differences(meta["identity"], identity(run), allow)
    if meta["prompts"] != (prompts := len(run.task.train)):
        # Beliefs are about the prompts one by one.
        different.append(
            f"{meta['prompts']} prompts in the checkpoint, {prompts} now, which nothing can accept"
        )
    if different:
        raise ValueError(
            f"{folder} holds a run that differs from this one:\n  "
            + "\n  ".join(different)
            + "\nrepeat the settings of that run, choose another --out, accept a difference with "
            "--allow NAME, or begin anew with --restart"
        )
    position = position_of(meta)
    check_lines(folder / outputs.METRICS, position)
    return {
        "path": str(good),
        "position": position,
        "pool_rows": meta["pool_rows"],
        "damaged": [(str(bad.path), bad.reason) for bad in damaged],
    }


def _unusable(path: Path) -> str | None:
    """Why a checkpoint cannot be used; None if it can."""
    if (reason := damage(path)) is not None:
        return reason
    try:
        return wrong_with(checkpoint.read_meta(path), int(path.name))
    # Whoever sealed it, what is in it may be anything.
    except Exception as error:
        return f"its meta item cannot be read ({type(error).__name__}: {str(error)[:200]})"


def _tidy(folder: Path, position: Position, damaged: Sequence[Damaged]) -> list[str]:
    """Cut the lines after ``position`` and rename damaged checkpoints; say so."""
    os.truncate(folder / outputs.METRICS, position.metrics_bytes)
    notices = []
    for bad in damaged:
        aside = checkpoint.set_aside(bad.path)
        notices.append(f"checkpoint {bad.path} is damaged: {bad.reason}; it is now {aside}")
    return notices


def meta_of(
    run: Run, made_of: Mapping[str, Any], position: Position, held_out: float | None
) -> Meta:
    """The JSON item of a checkpoint.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        made_of: its identity.
        position: where it stands.
        held_out: accuracy after this very step, if it was measured.

    Returns:
        a JSON-serialisable dictionary.
    """
    return {
        "format": FORMAT,
        **position._asdict(),
        "held_out": held_out,
        "prompts": len(run.task.train),
        "pool_rows": run.prompts.length.shape[0],
        "identity": dict(made_of),
    }


def _begin_anew(run: Run, folder: Path) -> tuple[str, ...]:
    """Clear what a run left that has no checkpoint, and say so."""
    metrics = folder / outputs.METRICS
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    # A run that old has had checkpoints: somebody removed them, and may want the rest.
    old = (folder / outputs.SUMMARY).exists() or lines > 2 * run.config.checkpoint.every
    if aside := outputs.open_folder(folder) if old else None:
        return (f"{folder} has no checkpoint: beginning at step 0, what was there is in {aside}",)
    folder.mkdir(parents=True, exist_ok=True)
    metrics.unlink(missing_ok=True)
    if lines:
        return (f"{folder} has no checkpoint yet, its run was short: beginning at step 0",)
    return ()


def _no_good(steps: Path, damaged: Sequence[Damaged]) -> str:
    lines = "\n  ".join(f"{bad.path.name}: {bad.reason}" for bad in damaged)
    return (
        f"no checkpoint in {steps} can be used:\n  {lines}\n"
        "put back an undamaged copy, choose another --out, or begin anew with --restart"
    )
