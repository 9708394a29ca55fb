"""A step whose loss or gradient was not finite, written down so that it can be looked at again.

from dpsjax.run import reproducer
print(reproducer.repeat("DIR/faults/step-7.npz").loss)
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.mesh import batch_sharding
from dpsjax.grpo.update import UpdateMetrics
from dpsjax.loop.state import TrainState
from dpsjax.policy import Images
from dpsjax.policy.weights import on_host
from dpsjax.run import outputs
from dpsjax.run.config import from_dict
from dpsjax.run.processes import from_first, is_first
from dpsjax.run.setup import Run, prepare
from dpsjax.types import Array, PyTree

# Each holds the parameters: enough to see whether they are alike.
MOST = 3


class Reproducer(NamedTuple):
    """A step that was skipped.

    Attributes:
        step: its number, from 1.
        key: random key of the run; the step folds its number, counted from 0, into it.
        batch: what the policy was to learn from.
        params: by path; what is trained, so with adapters those alone.
    """

    step: int
    key: Array
    batch: RolloutBatch
    params: dict[str, np.ndarray]


def write(folder: Path, state: TrainState, step: int, batch: RolloutBatch) -> Path | None:
    """Write down a step that was skipped: its number, key, batch and parameters.

    All processes must call this together; the first writes.

    Args:
        folder: DIR/faults.
        state: after the skip. With one optimizer step a batch its parameters are those from
            before; with several, the others may have moved them.
        step: number of the step, from 1.
        batch: of :class:`dpsjax.loop.step.Step`.

    Returns:
        ``step-N.npz``; None when there are enough of them already.
    """
    path = folder / f"step-{step}.npz"

    def enough() -> bool:
        folder.mkdir(parents=True, exist_ok=True)
        return len(list(folder.glob("*.npz"))) >= MOST and not path.exists()

    if from_first(enough):
        return None
    arrays: dict[str, Any] = {
        "step": np.int32(step),
        "key_data": np.asarray(jax.random.key_data(state.key)),
        "key_impl": np.array(str(jax.random.key_impl(state.key))),
        **{f"batch/{name}": on_host(value) for name, value in _fields(batch).items()},
        **{f"params/{name}": on_host(leaf) for name, leaf in _named(state.params)},
    }
    if is_first():
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
    return path


def _fields(batch: RolloutBatch) -> dict[str, jax.Array]:
    """The arrays of a batch, by name."""
    found = batch._asdict()
    images = found.pop("images")
    shown = {} if images is None else images._asdict()
    return found | {f"images/{name}": value for name, value in shown.items()}


def _shown(arrays: Mapping[str, Any]) -> Sequence[str]:
    """Fields of the pictures in a file, if its prompts show some."""
    return [name for name in Images._fields if f"batch/images/{name}" in arrays]


def read(path: str | Path) -> Reproducer:
    """Read a step that was written down. No pickled object is accepted.

    Args:
        path: ``DIR/faults/step-N.npz``.

    Returns:
        NumPy arrays, and the key.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        images = {n: arrays[f"batch/images/{n}"] for n in _shown(arrays)}
        batch = {name: arrays[f"batch/{name}"] for name in RolloutBatch._fields if name != "images"}
        batch["images"] = Images(**images) if images else None
        key = jax.random.wrap_key_data(
            jnp.asarray(arrays["key_data"]), impl=str(arrays["key_impl"])
        )
        params = {
            n.removeprefix("params/"): a for n, a in arrays.items() if n.startswith("params/")
        }
        return Reproducer(int(arrays["step"]), key, RolloutBatch(**batch), params)
    except FileNotFoundError:
        raise
    except Exception as error:  # of NumPy, zipfile and JAX
        raise ValueError(f"path={str(path)!r} is no reproducer of a step: {error}") from error


def repeat(
    path: str | Path, run: Run | None = None, state: TrainState | None = None
) -> UpdateMetrics:
    """Make the update of a step that was written down once more, on the devices that are here.

    Args:
        path: ``DIR/faults/step-N.npz``.
        run: of :func:`dpsjax.run.setup.prepare`; by default, from ``DIR/config.json``.
        state: its first state.

    Returns:
        what the update did; ``skipped_nonfinite`` counts the optimizer steps that are not finite.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is something else, or the two do not belong together.
    """
    found = read(path)
    if run is None or state is None:
        record = json.loads((Path(path).parent.parent / outputs.CONFIG).read_text(encoding="utf-8"))
        run, state = prepare(from_dict(record["config"]))
    names = {name for name, _ in _named(state.params)}
    if names != set(found.params):
        raise ValueError(
            f"path={str(path)!r} has parameters that this run has not: "
            f"{sorted(names ^ set(found.params))[:3]}"
        )
    mesh, flat = run.mesh, found.params

    def place(where: Any, leaf: jax.Array) -> jax.Array:
        return jax.device_put(flat[_name(where)], leaf.sharding)

    with jax.set_mesh(mesh):
        params = jax.tree_util.tree_map_with_path(place, state.params)
        batch = jax.device_put(found.batch, batch_sharding(mesh))
        update = jax.jit(lambda *values: run.stages.policy_update(*values)[2])
        return update(params, state.opt_state, batch, run.reference)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(params: PyTree) -> list[tuple[str, jax.Array]]:
    return [(_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
