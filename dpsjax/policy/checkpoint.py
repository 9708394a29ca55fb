"""Folders of Qwen2.5, Qwen3 and Llama-3: read into shards, written so that transformers loads."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from dpsjax import checks
from dpsjax.policy.config import PolicyConfig, Rope
from dpsjax.policy.weights import (
    load_tensors,
    require_parameters,
    save_tensors,
    stored_tensors,
    write_atomically,
)
from dpsjax.types import PyTree

__all__ = ["config_from_json", "config_to_json", "load_checkpoint", "save_checkpoint"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
_COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
)


def _unsupported(what: str, value: Any, fix: str) -> ValueError:
    return ValueError(f"config.json: {what}={value!r} is not supported; {fix}")


def _number(values: Mapping[str, Any], name: str, default: Any, kind: type) -> Any:
    """A positive number of a ``config.json``; KeyError if it is missing and has no default."""
    value = values[name] if default is None else values.get(name, default)
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not 0 < value < math.inf or kind(value) != value:
        raise _unsupported(name, value, f"it must be a positive {kind.__name__}")
    return kind(value)


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in a ``config.json``, empty where it is missing or null."""
    value = values.get(name) or {}
    if not isinstance(value, Mapping):
        raise _unsupported(name, value, "it must be an object")
    return value


def _rope_from_json(values: Mapping[str, Any]) -> Rope:
    """RoPE of either layout: ``rope_parameters``, or ``rope_theta`` beside ``rope_scaling``."""
    scaling = {**_table(values, "rope_scaling"), **_table(values, "rope_parameters")}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    positions = _number(values, "max_position_embeddings", 32_768, int)
    theta = _number({**values, **scaling}, "rope_theta", 10_000.0, float)
    if kind == "default":
        return Rope(theta=theta, max_positions=positions)
    if kind not in ("linear", "llama3"):
        raise _unsupported("rope_type", kind, "use default, linear or llama3")
    return Rope(
        theta=theta,
        scaling=kind,
        factor=_number(scaling, "factor", None, float),
        low_frequency=_number(scaling, "low_freq_factor", 1.0, float),
        high_frequency=_number(scaling, "high_freq_factor", 4.0, float),
        original_positions=_number(scaling, "original_max_position_embeddings", 8192, int),
        max_positions=positions,
    )


def config_from_json(values: Mapping[str, Any]) -> PolicyConfig:
    """Read the architecture out of a ``config.json``.

    Args:
        values: the parsed file.

    Returns:
        The configuration.

    Raises:
        TypeError: ``values`` is no dictionary.
        ValueError: a number that is none, another model family, or a feature that would change the
            function silently (sliding windows, another activation, biases elsewhere, other RoPE
            scalings).
    """
    checks.require_type(Mapping, "the object in a config.json", values=values)
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise _unsupported("model_type", kind, f"use one of {', '.join(_ARCHITECTURES)}")
    if values.get("hidden_act", "silu") != "silu":
        raise _unsupported("hidden_act", values["hidden_act"], "only silu is")
    if values.get("use_sliding_window") or "sliding_attention" in (values.get("layer_types") or ()):
        raise _unsupported("use_sliding_window", True, "only full attention is")
    for name in ("mlp_bias", *(("attention_bias",) if kind != "qwen2" else ())):
        if values.get(name):
            raise _unsupported(name, True, "only Qwen2's biases on queries, keys and values are")
    try:
        heads = _number(values, "num_attention_heads", None, int)
        width = _number(values, "hidden_size", None, int)
        shared = {k: v for k, v in values.items() if v is not None}  # null means the default
        return PolicyConfig(
            vocab_size=_number(values, "vocab_size", None, int),
            width=width,
            mlp_width=_number(values, "intermediate_size", None, int),
            layers=_number(values, "num_hidden_layers", None, int),
            heads=heads,
            kv_heads=_number(shared, "num_key_value_heads", heads, int),
            head_dim=_number(shared, "head_dim", width // max(heads, 1), int),
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            attention_bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
            norm_eps=_number(values, "rms_norm_eps", 1e-6, float),
            rope=_rope_from_json(values),
        )
    except KeyError as error:
        raise ValueError(f"config.json: {error.args[0]!r} is missing") from error


def config_to_json(config: PolicyConfig) -> dict[str, Any]:
    """A ``config.json`` that transformers reads, of the family the architecture belongs to.

    Raises:
        TypeError: ``config`` is something else.
        ValueError: no public family has both qk-norm and biases, or Qwen2 another head size.
    """
    checks.require_type(PolicyConfig, "a PolicyConfig", config=config)
    if config.qk_norm and config.attention_bias:
        raise ValueError("qk_norm=True with attention_bias=True is no public family; drop one")
    if config.attention_bias and config.head_dim * config.heads != config.width:
        raise ValueError(
            f"head_dim={config.head_dim} must be width / heads = {config.width / config.heads} "
            "to be written as Qwen2"
        )
    kind = "qwen3" if config.qk_norm else "qwen2" if config.attention_bias else "llama"
    rope = config.rope
    scaling: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        scaling |= {
            "low_freq_factor": rope.low_frequency,
            "high_freq_factor": rope.high_frequency,
            "original_max_position_embeddings": rope.original_positions,
        }
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": config.attention_bias,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": rope.theta,
        "rope_scaling": None if rope.scaling == "none" else scaling,
        "max_position_embeddings": rope.max_positions,
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: is this a checkpoint folder?")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds {str(values)[:40]!r}, and must hold an object")
    return values


def _shards(folder: Path) -> list[Path]:
    """Weight files of a folder; a shard the index names must exist."""
    index = folder / _INDEX
    if not index.is_file():
        if not (folder / _SINGLE).is_file():
            raise FileNotFoundError(f"{folder} holds neither {_SINGLE} nor {_INDEX}")
        return [folder / _SINGLE]
    where = _read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index}: weight_map={where!r} must name a shard for every tensor")
    for tensor, name in sorted(where.items()):
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: shard {name!r} lies outside the folder")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist, tensor {tensor!r} is in it")
    return [folder / name for name in sorted(set(where.values()))]


def load_checkpoint(folder: str | Path, *, mesh: Mesh | None = None) -> tuple[PolicyConfig, PyTree]:
    """Read a Qwen2, Qwen2.5, Qwen3 or Llama-3 checkpoint folder.

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
    config = config_from_json(_read_json(folder / "config.json"))
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
        values = {**_read_json(Path(source) / "config.json"), **values}
        values.pop("rope_parameters", None)  # stated by rope_theta and rope_scaling
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
    _write_json(folder / "config.json", values)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda part: part.write_text(text))


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
    _write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": where})
