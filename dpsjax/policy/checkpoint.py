"""Folders of Qwen2.5, Qwen2.5-VL, Qwen3 and Llama-3.

They are read into shards, and written so that transformers loads them.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from dpsjax import checks
from dpsjax.files import read_json, write_json
from dpsjax.policy.config import PolicyConfig
from dpsjax.policy.config_json import config_from_json, config_to_json, with_preprocessing
from dpsjax.policy.tensor_files import save_tensors
from dpsjax.policy.weights import config_in, load_tensors, require_parameters, stored_tensors
from dpsjax.types import PyTree

__all__ = ["load_checkpoint", "save_checkpoint", "stored_config"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: is this a checkpoint folder?")
    return read_json(path)


def _config_of(folder: Path) -> PolicyConfig:
    """The architecture of a folder; for pictures also what its processor does to them."""
    config = config_from_json(_read_config(folder))
    if config.vision is None:
        return config
    values: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            values |= found.get("image_processor", found)
    return dataclasses.replace(config, vision=with_preprocessing(config.vision, values))


def _shards(folder: Path) -> list[Path]:
    """Weight files of a folder; a shard that the index names must exist."""
    index, single = folder / _INDEX, folder / _SINGLE
    if not index.is_file():
        if not single.is_file():
            raise FileNotFoundError(f"{folder} holds neither {_SINGLE} nor {_INDEX}")
        return [single]
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index}: weight_map={where!r} must name a shard for every tensor")
    for name in where.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: shard {name!r} lies outside the folder")
    names = sorted(set(where.values()))
    if single.is_file() and names != [_SINGLE]:
        raise ValueError(
            f"{folder} holds two sets of weights, {_SINGLE} and the shards of {_INDEX}: "
            "move the one that is not wanted away"
        )
    for tensor, name in sorted(where.items()):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist, tensor {tensor!r} is in it")
    return [folder / name for name in names]


def stored_config(path: str | Path) -> PolicyConfig:
    """The architecture of stored weights, which are not read themselves.

    Args:
        path: a checkpoint folder, of which ``config.json`` is enough, or a file of
            ``save_weights``.

    Returns:
        the architecture.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: there is nothing, or no ``config.json`` in the folder.
        ValueError: an unsupported architecture, or a damaged file.
    """
    checks.require_type((str, Path), "a path", path=path)
    path = Path(path)
    return _config_of(path) if path.is_dir() else config_in(path)


def load_checkpoint(folder: str | Path, *, mesh: Mesh | None = None) -> tuple[PolicyConfig, PyTree]:
    """Read a Qwen2, Qwen2.5, Qwen2.5-VL, Qwen3 or Llama-3 checkpoint folder.

    Every device reads its own slices of the stored tensors: no host holds the whole model beside
    its shards.

    Args:
        folder: with ``config.json`` and ``model.safetensors``, or shards and their index.
        mesh: to place the parameters on; None for the default device.

    Returns:
        ``(config, params)``, float32; ``nnx.merge(abstract_policy(config)[0], params)`` is the
        policy.

    Raises:
        TypeError: ``folder`` is no path, or ``mesh`` no mesh.
        FileNotFoundError: a file is missing; a shard's error names a tensor in it.
        ValueError: an unsupported architecture, or a tensor that is missing, unknown, of the wrong
            shape or cut off; names file and tensor.
    """
    checks.require_type((str, Path), "a folder", folder=folder)
    checks.require_type(Mesh, "a mesh", **checks.given(mesh=mesh))
    folder = Path(folder)
    config = _config_of(folder)
    return config, load_tensors(config, _shards(folder), mesh)


def save_checkpoint(
    folder: str | Path,
    config: PolicyConfig,
    params: PyTree,
    *,
    source: str | Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a folder that ``transformers`` loads.

    A shard is written as soon as it is full, so a host holds one shard. ``config.json`` comes last:
    a folder without it is an unfinished one. With several processes all must call this; process 0
    writes.

    Args:
        folder: created when absent.
        config: the architecture.
        params: state of a ``Policy``.
        source: checkpoint folder to take tokenizer, chat template and the other settings of
            ``config.json`` from.
        dtype: of the written tensors.
        shard_bytes: largest shard; a model that fits in one is ``model.safetensors``.

    Raises:
        TypeError: an argument is something else.
        ValueError: ``params`` are not of ``config``, or ``dtype`` or ``shard_bytes`` is not known.
    """
    checks.require_type((str, Path), "a folder", folder=folder, **checks.given(source=source))
    require_parameters(config, params)
    checks.require_counts(shard_bytes=shard_bytes)
    if not isinstance(dtype, str) or dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={dtype!r} is not known; use float32 or bfloat16")
    folder = Path(folder)
    values = config_to_json(config)
    if source is not None:
        values = _over(_read_config(Path(source)), values)
    values.pop("dtype", None)
    values["torch_dtype"] = dtype
    writer = jax.process_index() == 0
    if writer:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", _INDEX, _SINGLE):
            (folder / name).unlink(missing_ok=True)
    _write_shards(folder, params, dtype, shard_bytes, writer)
    if not writer:
        return
    if source is not None and Path(source).resolve() != folder.resolve():
        for name in _COMPANIONS:
            if (Path(source) / name).is_file():
                shutil.copyfile(Path(source) / name, folder / name)
    write_json(folder / "config.json", values)


def _over(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The settings of a source with those of a policy in their place."""
    for table in ("text_config", "vision_config"):
        if table in new:
            new = {**new, table: _over(old.get(table) or {}, new[table])}
    # what was at the top and is now below would be stated twice
    below = new.get("text_config", {})
    old = {k: v for k, v in old.items() if k not in below or k in new}
    old.pop("rope_parameters", None)  # stated by rope_theta and rope_scaling
    return {**old, **new}


def _write_shards(folder: Path, params: PyTree, dtype: str, shard_bytes: int, writer: bool) -> None:
    """Write the tensors in shards, and their index when there are several."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    shard: dict[str, np.ndarray] = {}
    written: list[tuple[Path, list[str], int]] = []

    def flush() -> None:
        path = folder / f".shard-{len(written) + 1:05d}"
        if writer:
            save_tensors(shard, path, {"format": "pt"})
        written.append((path, list(shard), sum(array.nbytes for array in shard.values())))
        shard.clear()

    for name, array in stored_tensors(params, kind):
        if shard and sum(a.nbytes for a in shard.values()) + array.nbytes > shard_bytes:
            flush()
        if writer:
            shard[name] = array
    if shard:
        flush()
    if not writer:
        return
    if len(written) == 1:
        written[0][0].replace(folder / _SINGLE)
        return
    where = {}
    for i, (path, names, _) in enumerate(written, 1):
        name = f"model-{i:05d}-of-{len(written):05d}.safetensors"
        path.replace(folder / name)
        where |= dict.fromkeys(names, name)
    total = sum(size for _, _, size in written)
    write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": where})
