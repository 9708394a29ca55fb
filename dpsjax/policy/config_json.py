"""``config.json`` of Qwen2, Qwen2.5, Qwen2.5-VL, Qwen3 and Llama-3, to a ``PolicyConfig`` and back.

Qwen2.5-VL's has the settings of the text at the top, or below ``text_config`` as newer releases of
transformers write it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dpsjax import checks
from dpsjax.policy.config import PolicyConfig, Rope
from dpsjax.policy.vision_config import VisionConfig

__all__ = ["config_from_json", "config_to_json", "with_preprocessing"]

_ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
_BIASED = ("qwen2", "qwen2_5_vl")
# Of a vision tower: a setting here, and what it is called there.
_VISION = {
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "layers": "depth",
    "heads": "num_heads",
    "full_layers": "fullatt_block_indexes",
    "window": "window_size",
    "patch": "patch_size",
    "merge": "spatial_merge_size",
    "frames": "temporal_patch_size",
    "channels": "in_channels",
}


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
    sections = tuple(scaling.get("mrope_section") or ())
    if kind in ("default", "mrope"):
        return Rope(theta=theta, max_positions=positions, sections=sections)
    if sections:
        raise _unsupported("rope_type", kind, "beside mrope_section, only the default is")
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
    outer, values = values, {**values, **_table(values, "text_config")}
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise _unsupported("model_type", kind, f"use one of {', '.join(_ARCHITECTURES)}")
    if values.get("quantization_config"):
        raise _unsupported("quantization_config", "...", "give the checkpoint before quantisation")
    if values.get("hidden_act", "silu") != "silu":
        raise _unsupported("hidden_act", values["hidden_act"], "only silu is")
    if values.get("use_sliding_window") or "sliding_attention" in (values.get("layer_types") or ()):
        raise _unsupported("use_sliding_window", True, "only full attention is")
    for name in ("mlp_bias", *(("attention_bias",) if kind not in _BIASED else ())):
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
            tied_embeddings=bool({**values, **outer}.get("tie_word_embeddings", False)),
            attention_bias=kind in _BIASED,
            qk_norm=kind == "qwen3",
            norm_eps=_number(values, "rms_norm_eps", 1e-6, float),
            rope=_rope_from_json(values),
            vision=_vision_from_json(outer) if kind == "qwen2_5_vl" else None,
        )
    except KeyError as error:
        raise ValueError(f"config.json: {error.args[0]!r} is missing") from error


def _vision_from_json(values: Mapping[str, Any]) -> VisionConfig:
    """The vision tower of a Qwen2.5-VL; KeyError if a number is missing."""
    table = _table(values, "vision_config")
    if table.get("hidden_act", "silu") != "silu":
        raise _unsupported("vision_config.hidden_act", table["hidden_act"], "only silu is")
    settings: dict[str, Any] = {"channels": 3}  # older folders call it in_chans, and it is 3
    for name, stored in _VISION.items():
        if name == "full_layers":
            settings[name] = tuple(table[stored])
        elif name != "channels" or stored in table:
            settings[name] = _number(table, stored, None, int)
    return VisionConfig(
        image_token=_number(values, "image_token_id", None, int),
        start_token=values.get("vision_start_token_id"),
        end_token=values.get("vision_end_token_id"),
        **settings,
    )


def with_preprocessing(vision: VisionConfig, values: Mapping[str, Any]) -> VisionConfig:
    """The tower with what a ``preprocessor_config.json`` says of pictures.

    Raises:
        ValueError: pictures would be cut or scaled in another way than is known here.
    """
    for name, wanted in (("patch_size", vision.patch), ("merge_size", vision.merge)):
        if values.get(name, wanted) != wanted:
            raise ValueError(f"preprocessor_config.json: {name}={values[name]!r} is not {wanted}")
    size = values.get("size") or {}
    found = {
        "min_pixels": values.get("min_pixels") or size.get("shortest_edge"),
        "max_pixels": values.get("max_pixels") or size.get("longest_edge"),
        "mean": _floats(values.get("image_mean")),
        "std": _floats(values.get("image_std")),
    }
    return dataclasses.replace(vision, **checks.given(**found))


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _vision_to_json(config: PolicyConfig, values: dict[str, Any]) -> dict[str, Any]:
    """A Qwen2.5-VL's ``config.json``: the text's settings below ``text_config``."""
    vision = config.vision
    if vision is None or not config.attention_bias or config.rope.scaling != "none":
        raise ValueError("a policy that sees pictures is written as Qwen2.5-VL: use attention_bias")
    kind = "qwen2_5_vl"
    tower = {stored: getattr(vision, name) for name, stored in _VISION.items()}
    tower["fullatt_block_indexes"] = list(vision.full_layers)
    text = {k: v for k, v in values.items() if k not in ("architectures", "tie_word_embeddings")}
    sections = list(config.rope.sections)
    rope = {"rope_type": "default", "type": "default", "mrope_section": sections}
    text |= {"model_type": f"{kind}_text", "rope_scaling": rope}
    marks = {"vision_start_token_id": vision.start_token, "vision_end_token_id": vision.end_token}
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "tie_word_embeddings": config.tied_embeddings,
        "image_token_id": vision.image_token,
        **checks.given(**marks),
        "text_config": text,
        "vision_config": {
            "model_type": kind,
            "hidden_act": "silu",
            **tower,
            "out_hidden_size": config.width,
        },
    }


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
    values = {
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
    return values if config.vision is None else _vision_to_json(config, values)
