"""Checkpoints: the whole state of a run as one Orbax step, written beside the training.

A step is a folder ``DIR/checkpoints/STEP`` with two items, ``state`` (every array) and ``meta``
(JSON), and the checksums of both. Orbax writes it under another name; checksums are added and
files flushed before it gets its own, so a step is there whole or not at all.
"""

import contextlib
import gc
import logging
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.loop.state import TrainState
from dpsjax.run.config import CheckpointConfig
from dpsjax.run.seal import damage, write_seal
from dpsjax.selectors.pool import SHARED
from dpsjax.types import PyTree

Meta = dict[str, Any]

_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_UNFINISHED = ".orbax-checkpoint-tmp"  # of Orbax: the end of the name while it writes


class _Withheld(logging.Filter):
    """Keeps what is logged back, and whether there were errors."""

    errors = False

    def filter(self, record: logging.LogRecord) -> bool:
        self.errors |= record.levelno >= logging.ERROR
        return record.levelno >= logging.CRITICAL


@contextlib.contextmanager
def one_report():
    """Leave a failed checkpoint to the sentence that :class:`Saver` makes of it.

    Orbax logs three tracebacks of it, and what TensorStore was still writing tells an event loop
    that is closed by then, which Python prints. Writes that failed beside it are reported by
    asyncio when their futures are collected, whenever that is; a traceback formatted while Python
    3.11 parses something breaks that (SystemError). So they are collected here, unheard.
    """
    loggers, hook = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    withheld = _Withheld()

    def without_late_news(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    for logger in loggers:
        logger.addFilter(withheld)
    sys.unraisablehook = without_late_news
    try:
        yield
    finally:
        if withheld.errors:
            gc.collect()
        for logger in loggers:
            logger.removeFilter(withheld)
        sys.unraisablehook = hook


class Damaged(NamedTuple):
    """A checkpoint that cannot be used.

    Attributes:
        path: its folder.
        reason: a sentence without a full stop.
    """

    path: Path
    reason: str


def step_folders(folder: Path) -> list[Path]:
    """The checkpoints in a folder, sound or not, oldest first.

    Args:
        folder: DIR/checkpoints; it need not exist.

    Returns:
        their folders.
    """
    if not folder.is_dir():
        return []
    steps = (path for path in folder.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir())
    return sorted(steps, key=_step_of)


def last_good(
    folder: Path, unusable: Callable[[Path], str | None] = damage
) -> tuple[Path | None, list[Damaged]]:
    """The newest checkpoint that can be used.

    Args:
        folder: DIR/checkpoints.
        unusable: why a checkpoint cannot be used, or None; by default, whether all of its files
            are as they were written.

    Returns:
        its folder, or None; and the newer ones, which are damaged.
    """
    damaged = []
    for path in reversed(step_folders(folder)):
        reason = unusable(path)
        if reason is None:
            return path, damaged
        damaged.append(Damaged(path, reason))
    return None, damaged


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that a new one can take its place.

    Args:
        path: its folder.

    Returns:
        the new name.
    """
    number = 1
    while (target := path.with_name(f"damaged-{path.name}-{number}")).exists():
        number += 1
    return path.rename(target)


def read_meta(path: Path) -> Meta:
    """The JSON item of a checkpoint; one process alone may read it.

    Args:
        path: its folder.

    Returns:
        what was given to :meth:`Saver.save`.
    """
    import orbax.checkpoint as ocp  # heavy: only runs that save or resume pay for it
    from etils import epath

    # The handler alone: a Checkpointer would wait for the other processes, who need not read this.
    restored = ocp.JsonCheckpointHandler().restore(
        epath.Path(path.absolute() / "meta"), args=ocp.args.JsonRestore()
    )
    return dict(restored)


def read_state(
    path: Path, like: TrainState, axes: PyTree, saved_rows: int, num_prompts: int
) -> TrainState:
    """The state in a checkpoint, placed like another.

    The number and arrangement of devices may differ from those that wrote it. The rows that only
    fill up the pool to a multiple of the devices are then cut or added.

    Args:
        path: folder of the checkpoint.
        like: decides shapes, dtypes and shardings; of its values only rows that fill up the pool
            are used.
        axes: the prompt axis of each leaf of the selector's state (:func:`prompt_axes`).
        saved_rows: rows of the pool that was saved, filled up.
        num_prompts: N, the real rows, which come first.

    Returns:
        the state.
    """
    import orbax.checkpoint as ocp

    rows, raw = like.visits.shape[0], _raw(like)
    same = saved_rows == rows

    def target(leaf: jax.Array, axis: int = SHARED) -> jax.ShapeDtypeStruct:
        if same or axis == SHARED:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        whole = jax.sharding.NamedSharding(leaf.sharding.mesh, jax.sharding.PartitionSpec())  # pyright: ignore
        shape = (*leaf.shape[:axis], saved_rows, *leaf.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=whole)

    shapes = jax.tree.map(target, raw)._replace(
        selector=jax.tree.map(target, raw.selector, axes), visits=target(raw.visits, 0)
    )
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        found = reader.restore(
            path.absolute(), ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        )

    def settle(saved: jax.Array, leaf: jax.Array, axis: int = SHARED) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(leaf))
        if same or axis == SHARED:
            return saved
        return _refill(saved, leaf, axis, num_prompts)

    return jax.tree.map(settle, found.state, like)._replace(
        selector=jax.tree.map(settle, found.state.selector, like.selector, axes),
        visits=settle(found.state.visits, like.visits, 0),
    )


class Saver:
    """Writes checkpoints in the background, and keeps the last ones and the best.

    Args:
        folder: DIR/checkpoints.
        config: how many to keep, and what to do when one cannot be written.
        notify: called with a sentence when one cannot be written.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, notify: Callable[[str], None]
    ) -> None:
        self.folder, self.config, self.notify = folder.absolute(), config, notify
        self.last = -1  # step of the newest checkpoint that is whole
        self._writing: int | None = None
        self._checkpointer: Any = None
        self._held_out: dict[int, float | None] = {}
        if jax.process_index() == 0:
            self._clear("[0-9]*")  # of a process that was killed while writing
        for path in step_folders(self.folder):
            self.last = _step_of(path)
            with contextlib.suppress(Exception):  # an older one may be damaged; it is not best
                self._held_out[self.last] = read_meta(path).get("held_out")

    def save(self, state: TrainState, meta: Meta) -> None:
        """Start to write a checkpoint; waits only for an earlier one that is not finished.

        Args:
            state: its buffers may be donated as soon as this returns.
            meta: JSON-serialisable, with ``step`` and ``held_out`` (accuracy or None).

        Raises:
            OSError: an earlier one could not be written, and the settings say to stop then.
        """
        import orbax.checkpoint as ocp

        self.wait()
        step = int(meta["step"])
        # On a CPU "device to host" is no copy, and the next step will reuse the buffers.
        arrays = jax.tree.map(jnp.copy, _raw(state))
        with self._reporting(step):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._checkpointer is None:
                self._checkpointer = ocp.AsyncCheckpointer(
                    ocp.CompositeCheckpointHandler(),
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                )
            self._writing = step
            self._checkpointer.save(
                self.folder / str(step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
                ),
            )
            self._held_out[step] = meta["held_out"]

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, then delete those not to keep.

        Raises:
            OSError: it could not be written, and the settings say to stop then.
        """
        if self._writing is None:
            return
        step = self._writing
        with self._reporting(step):
            self._checkpointer.wait_until_finished()
            self.last, self._writing = step, None
            self._retain()

    def close(self) -> None:
        """Wait, and end the threads."""
        try:
            self.wait()
        finally:
            self._drop()

    def _seal(self) -> None:
        """Called by Orbax when all files are written, before the folder gets its name."""
        if jax.process_index() == 0:
            name = str(self._writing)
            for path in (self.folder / name, *self.folder.glob(f"{name}{_UNFINISHED}*")):
                if path.is_dir():
                    write_seal(path)

    def _clear(self, step: str) -> None:
        """Delete what is not written to the end, and nothing that somebody else put there."""
        for path in self.folder.glob(f"{step}{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _retain(self) -> None:
        if jax.process_index() != 0:
            return
        steps = [_step_of(path) for path in step_folders(self.folder)]
        for step in set(steps) - kept(steps, self._held_out, self.config):
            shutil.rmtree(self.folder / str(step), ignore_errors=True)

    @contextlib.contextmanager
    def _reporting(self, step: int):
        """Turn a failure to write into a sentence, or into an OSError if the settings say so."""
        try:
            yield
        # Orbax, TensorStore and the file system each raise errors of their own.
        except Exception as error:
            self._writing = None
            self._held_out.pop(step, None)
            self._drop()
            if jax.process_index() == 0:
                self._clear(str(step))  # what is half written takes room
            good = f"step {self.last} is kept" if self.last >= 0 else "there is none before it"
            what = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
            message = f"the checkpoint of step {step} could not be written ({what}); {good}"
            if self.config.on_error == "stop":
                raise OSError(message) from error
            self.notify(f"{message}; training goes on")

    def _drop(self) -> None:
        if self._checkpointer is not None:
            with contextlib.suppress(Exception):  # what failed has been reported
                self._checkpointer.close()
            self._checkpointer = None


def kept(
    steps: Sequence[int], held_out: dict[int, float | None], config: CheckpointConfig
) -> set[int]:
    """Which checkpoints are kept: the last, and the one of best held-out accuracy.

    Args:
        steps: of all there are.
        held_out: accuracy by step, None where it was not measured.
        config: how many.

    Returns:
        a subset of ``steps``; among equally good ones the oldest is best.

    >>> sorted(kept([2, 4, 6, 8], {2: 0.1, 4: 0.5, 6: None, 8: 0.2}, CheckpointConfig(keep=1)))
    [4, 8]
    """
    keep = set(sorted(steps)[-config.keep :])
    measured = [(held_out[s], -s) for s in steps if held_out.get(s) is not None]
    if config.keep_best and measured:
        keep.add(-max(measured)[1])
    return keep


def _step_of(path: Path) -> int:
    return int(path.name)


def _raw(tree: Any) -> Any:
    """Random keys as plain integers, which every array format can hold."""

    def one(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(one, tree)


def _refill(saved: jax.Array, leaf: jax.Array, axis: int, num_prompts: int) -> jax.Array:
    """The real rows of ``saved``, and the rows of ``leaf`` that fill up the pool."""
    shard = {_bounds(s.index): np.asarray(s.data) for s in leaf.addressable_shards}
    before = (slice(None),) * axis
    real = np.asarray(saved)[(*before, slice(num_prompts))]

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or (slice(None),) * leaf.ndim
        values = shard[_bounds(index)].copy()
        start = index[axis].start or 0
        count = max(min(num_prompts - start, values.shape[axis]), 0)
        rows = slice(start, start + count)
        values[(*before, slice(count))] = real[(*index[:axis], rows, *index[axis + 1 :])]
        return values

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, part)


def _bounds(index: tuple[slice, ...]) -> tuple:
    """Slices as something that can be looked up."""
    return tuple((cut.start or 0, cut.stop) for cut in index)
