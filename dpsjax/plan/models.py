"""Architectures of public checkpoints, as data, and those in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpsjax.policy.config import PolicyConfig
from dpsjax.policy.config_json import config_from_json

__all__ = ["MODELS", "find_model"]

# Numbers of each checkpoint's config.json on huggingface.co (Qwen/Qwen2.5-*, Qwen/Qwen3-*,
# meta-llama/Llama-3.*, deepseek-ai/DeepSeek-R1-Distill-Qwen-*): vocab_size, hidden_size,
# intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim,
# tie_word_embeddings.
_SHAPES: Mapping[str, tuple[int, int, int, int, int, int, int, bool]] = {
    "qwen2.5-0.5b": (151936, 896, 4864, 24, 14, 2, 64, True),
    "qwen2.5-1.5b": (151936, 1536, 8960, 28, 12, 2, 128, True),
    "qwen2.5-3b": (151936, 2048, 11008, 36, 16, 2, 128, True),
    "qwen2.5-7b": (152064, 3584, 18944, 28, 28, 4, 128, False),
    "qwen2.5-14b": (152064, 5120, 13824, 48, 40, 8, 128, False),
    "qwen2.5-32b": (152064, 5120, 27648, 64, 40, 8, 128, False),
    "r1-distill-qwen-1.5b": (151936, 1536, 8960, 28, 12, 2, 128, False),
    "r1-distill-qwen-7b": (152064, 3584, 18944, 28, 28, 4, 128, False),
    "qwen3-0.6b": (151936, 1024, 3072, 28, 16, 8, 128, True),
    "qwen3-1.7b": (151936, 2048, 6144, 28, 16, 8, 128, True),
    "qwen3-4b": (151936, 2560, 9728, 36, 32, 8, 128, True),
    "qwen3-8b": (151936, 4096, 12288, 36, 32, 8, 128, False),
    "qwen3-14b": (151936, 5120, 17408, 40, 40, 8, 128, False),
    "qwen3-32b": (151936, 5120, 25600, 64, 64, 8, 128, False),
    "llama-3.2-1b": (128256, 2048, 8192, 16, 32, 8, 64, True),
    "llama-3.2-3b": (128256, 3072, 8192, 28, 24, 8, 128, True),
    "llama-3.1-8b": (128256, 4096, 14336, 32, 32, 8, 128, False),
    "llama-3.1-70b": (128256, 8192, 28672, 80, 64, 8, 128, False),
}
_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)


def _family(name: str) -> dict[str, Any]:
    """What a family has in common."""
    if name.startswith("llama"):
        scaling = {
            "rope_type": "llama3",
            "factor": 32.0 if name.startswith("llama-3.2") else 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        rope = {"rope_theta": 500_000.0, "rope_scaling": scaling}
        return {"model_type": "llama", "rms_norm_eps": 1e-5, **rope}
    kind = "qwen3" if name.startswith("qwen3") else "qwen2"
    theta = 10_000.0 if name.startswith("r1") else 1_000_000.0
    return {"model_type": kind, "rms_norm_eps": 1e-6, "rope_theta": theta}


MODELS: Mapping[str, PolicyConfig] = {
    name: config_from_json({**_family(name), **dict(zip(_KEYS, shape, strict=True))})
    for name, shape in _SHAPES.items()
}


def find_model(name: str) -> PolicyConfig:
    """The architecture of a preset, or of a checkpoint's folder.

    Args:
        name: a key of ``MODELS``, or a folder (or file) with a ``config.json``.

    Returns:
        The architecture.

    Raises:
        ValueError: neither, or a ``config.json`` of a model that is not supported.

    >>> find_model("qwen2.5-7b").num_params()
    7615616512
    """
    if name.lower() in MODELS:
        return MODELS[name.lower()]
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"model={name!r} is neither a folder with a config.json nor one of {', '.join(MODELS)}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"model={name!r}: {path} is not JSON: {error}") from error
    return config_from_json(values)
