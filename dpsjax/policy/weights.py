"""Weights in and out of safetensors files, under the names of Qwen and Llama checkpoints.

A parameter here and a tensor there differ in name, axis order and in how axes are merged, and all
of that is one table (``stored_names``). Reading goes straight into shards: a device's slice of a
parameter is a slice of stored tensors, and nothing else is read for it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, SingleDeviceSharding

from dpsjax import checks
from dpsjax.files import write_atomically
from dpsjax.policy.config import PolicyConfig
from dpsjax.policy.sharding import axis_letters, parameter_path, shardings
from dpsjax.policy.stored_names import STORED, axis_sizes, known_name, stored, tensor_name
from dpsjax.policy.tensor_files import open_tensors, read_header, save_tensors
from dpsjax.policy.transformer import abstract_policy
from dpsjax.types import PyTree

__all__ = [
    "load_tensors",
    "load_weights",
    "on_host",
    "require_parameters",
    "save_weights",
    "stored_tensors",
]

_CONFIG_KEY = "policy_config"


def _to_stored(array: np.ndarray, letters: str, axes: tuple[str, ...]) -> np.ndarray:
    """Reorder and merge the axes of one layer's parameter."""
    order = [letters.index(letter) for letter in "".join(axes)]
    sizes = dict(zip(letters, array.shape, strict=True))
    shape = [int(np.prod([sizes[letter] for letter in axis])) for axis in axes]
    return np.ascontiguousarray(array.transpose(order).reshape(shape))


def _stored_slices(
    index: Mapping[str, slice], sizes: Mapping[str, int], axes: tuple[str, ...]
) -> tuple[slice, ...]:
    """Slices of a stored tensor that hold a parameter's slices; only leading letters are cut.

    Of merged letters that follow, all is read, and ``_from_stored`` takes the slice.
    """
    slices = []
    for axis in axes:
        inner = int(np.prod([sizes[letter] for letter in axis[1:]]))
        start, stop, _ = index[axis[0]].indices(sizes[axis[0]])
        slices.append(slice(start * inner, stop * inner))
    return tuple(slices)


def _from_stored(
    tensor: np.ndarray, index: Mapping[str, slice], sizes: Mapping[str, int], letters: str, axes
) -> np.ndarray:
    """Undo ``_to_stored`` on the slices that ``index`` names."""
    spans, inner = [], []
    for axis in axes:
        first = range(*index[axis[0]].indices(sizes[axis[0]]))
        spans += [len(first), *(sizes[letter] for letter in axis[1:])]
        inner += [slice(None), *(index[letter] for letter in axis[1:])]
    tensor, stored = tensor.reshape(spans)[tuple(inner)], "".join(axes)
    return tensor.transpose([stored.index(letter) for letter in letters])


def on_host(array: jax.Array) -> np.ndarray:
    """The whole array, also when other processes hold parts of it; then all must call this."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def stored_tensors(params: PyTree, dtype: Any = np.float32) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a checkpoint, one at a time, by name.

    Args:
        params: state of a ``Policy``. In a run of several processes, all must iterate.
        dtype: of the written tensors, ``np.float32`` or ``ml_dtypes.bfloat16``.

    Yields:
        ``(name, array)`` under the names of Qwen and Llama checkpoints.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = parameter_path(path)
        letters, axes = axis_letters(names), stored(names).axes
        if letters[0] != "l":
            yield (
                tensor_name(names, None),
                _to_stored(on_host(leaf).astype(dtype), letters, axes),
            )
            continue
        for layer in range(leaf.shape[0]):
            array = on_host(leaf[layer]).astype(dtype)
            yield tensor_name(names, layer), _to_stored(array, letters[1:], axes)


def save_weights(path: str | Path, config: PolicyConfig, params: PyTree) -> None:
    """Write a policy as one safetensors file with its configuration in the header.

    The tensors have the names and shapes of a Qwen or Llama checkpoint, float32. The file appears
    at once or not at all. With several processes, all must call this; process 0 writes.

    Args:
        path: of the file, ``*.safetensors``.
        config: the architecture.
        params: state of a ``Policy``.

    Raises:
        TypeError: an argument is something else.
        ValueError: ``params`` are not of ``config``.
    """
    checks.require_type((str, Path), "the path of a file", path=path)
    require_parameters(config, params)
    tensors = dict(stored_tensors(params))
    metadata = {"format": "pt", _CONFIG_KEY: json.dumps(config.to_dict(), sort_keys=True)}
    if jax.process_index() == 0:
        write_atomically(Path(path), lambda part: save_tensors(tensors, part, metadata))


def require_parameters(config: PolicyConfig, params: PyTree) -> None:
    """Refuse parameters that are not of an architecture.

    Raises:
        TypeError: ``config`` is something else.
        ValueError: a parameter is missing, unknown or of another shape; the message names it.
    """
    checks.require_type(PolicyConfig, "a PolicyConfig", config=config)
    wanted, given = (
        {
            ".".join(parameter_path(path)): getattr(leaf, "shape", None)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (abstract_policy(config)[1], params)
    )
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise ValueError(
                f"params has {name!r} of shape {given.get(name)}, config needs {wanted.get(name)}: "
                "give the state of the policy with this config"
            )


def _expected(config: PolicyConfig, params: PyTree) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors a configuration needs."""
    expected = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = parameter_path(path)
        axes, sizes = stored(names).axes, axis_sizes(config, names)
        shape = tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in axes)
        stacked = axis_letters(names)[0] == "l"
        for layer in range(leaf.shape[0]) if stacked else [None]:
            expected[tensor_name(names, layer)] = shape
    return expected


# Number types that float32 holds; integers and float8 mean quantised weights with scales apart.
_FLOATS = ("BF16", "F16", "F32", "F64")
_ROWS = 1 << 12  # of the vocabulary, compared at a time


def _locate(
    files: Iterable[Path], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Path, str]]:
    """File and name of each tensor, after checking names, shapes and types of all."""
    where: dict[str, tuple[Path, str]] = {}
    for path in files:
        for written, entry in read_header(path).items():
            # "inv_freq": buffers of older exporters
            if written == "__metadata__" or written.endswith("rotary_emb.inv_freq"):
                continue
            name = known_name(written)
            if name not in expected:
                raise ValueError(
                    f"{path}: tensor {name!r} has no place in this configuration "
                    "(a bias, norm or head too many?)"
                )
            if tuple(entry["shape"]) != expected[name]:
                raise ValueError(
                    f"{path}: tensor {name!r} has shape {tuple(entry['shape'])}, "
                    f"the configuration needs {expected[name]}"
                )
            if entry["dtype"] not in _FLOATS:
                raise ValueError(
                    f"{path}: tensor {name!r} has type {entry['dtype']}, not one of "
                    f"{', '.join(_FLOATS)}: give the checkpoint before quantisation"
                )
            where[name] = path, written
    return where


def _require_tied(embedding: Any, head: Any, path: Path) -> None:
    """Refuse a head that is not the embedding, where the configuration says that it is."""
    count = embedding.get_shape()[0]
    for start in range(0, count, _ROWS):
        rows = slice(start, min(start + _ROWS, count))
        one, two = (np.asarray(part[rows]).astype(np.float32) for part in (embedding, head))
        if not np.array_equal(one, two, equal_nan=True):
            raise ValueError(
                f"{path}: 'lm_head.weight' differs from the embedding, but the configuration "
                "says that they are tied: set tie_word_embeddings to false to use it, or "
                "delete it from the file"
            )


def load_tensors(config: PolicyConfig, files: Iterable[Path], mesh: Mesh | None = None) -> PyTree:
    """Read parameters from safetensors files, each device its own slices.

    Args:
        config: the architecture.
        files: that together hold every tensor.
        mesh: to place the parameters on by ``shardings``; None for the default device.

    Returns:
        float32 state of a ``Policy``.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a tensor is missing, unknown, of the wrong shape or cut off; names file and
            tensor.
    """
    _, shapes = abstract_policy(config)
    expected, files = _expected(config, shapes), list(files)
    embedding, head = (STORED[name].name for name in ("embed_vd", "head_dv"))
    # some exporters write tied weights twice
    where = _locate(files, {head: expected[embedding], **expected})
    if missing := sorted(set(expected) - set(where)):
        names = ", ".join(map(str, files))
        raise ValueError(f"{names}: tensor {missing[0]!r} is missing ({len(missing)} in all)")
    handles = {path: open_tensors(path) for path in {path for path, _ in where.values()}}

    def tensor(name: str) -> Any:
        path, written = where[name]
        return handles[path].get_slice(written)

    if head in where and config.tied_embeddings:
        _require_tied(tensor(embedding), tensor(head), where[head][0])
    if mesh is None:
        device = SingleDeviceSharding(jax.local_devices()[0])
        places = jax.tree.map(lambda _: device, shapes)
    else:
        places = shardings(shapes, mesh)

    def read(names: tuple[str, ...], index: tuple[slice, ...], first: int) -> np.ndarray:
        letters, axes = axis_letters(names), stored(names).axes
        sizes = axis_sizes(config, names)
        spans = dict(zip(letters, index, strict=True))
        own = letters.removeprefix("l")
        slices = _stored_slices(spans, sizes, axes)
        layers = [None] if own == letters else range(*index[0].indices(first))
        parts = []
        for layer in layers:
            part = tensor(tensor_name(names, layer))[slices]
            parts.append(_from_stored(part, spans, sizes, own, axes).astype(np.float32))
        return parts[0] if own == letters else np.stack(parts)

    def place(path: tuple, leaf: jax.ShapeDtypeStruct, sharding) -> jax.Array:
        names = parameter_path(path)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            return read(names, index or (slice(None),) * len(leaf.shape), leaf.shape[0])

        return jax.make_array_from_callback(leaf.shape, sharding, part)

    return jax.tree_util.tree_map_with_path(place, shapes, places)


def load_weights(path: str | Path, *, mesh: Mesh | None = None) -> tuple[PolicyConfig, PyTree]:
    """Read a file of ``save_weights``.

    Args:
        path: of the file.
        mesh: to place the parameters on; None for the default device.

    Returns:
        ``(config, params)``; ``nnx.merge(abstract_policy(config)[0], params)`` is the policy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, or a tensor is missing, of the wrong shape or cut off.
    """
    checks.require_type((str, Path), "the path of a file", path=path)
    checks.require_type(Mesh, "a mesh", **checks.given(mesh=mesh))
    path = Path(path)
    config = config_in(path)
    return config, load_tensors(config, [path], mesh)


def config_in(path: Path) -> PolicyConfig:
    """The architecture that a file of ``save_weights`` is of; its weights are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file.
    """
    text = read_header(path).get("__metadata__", {}).get(_CONFIG_KEY)
    if not isinstance(text, str):
        raise ValueError(
            f"{path} holds no policy configuration; load a checkpoint folder with load_checkpoint"
        )
    try:
        return PolicyConfig.from_dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its policy configuration is damaged: {error}") from error
