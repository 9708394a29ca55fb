"""Which tensor of a checkpoint holds which parameter: names, axis order and merged axes."""

from collections.abc import Mapping
from typing import NamedTuple

from dpsjax.policy.config import PolicyConfig

__all__ = ["STORED", "Stored", "axis_sizes", "known_name", "stored", "tensor_name"]


class Stored(NamedTuple):
    """Where a parameter is kept.

    Attributes:
        name: of the tensor; below ``model.layers.<i>.`` for a layer's.
        axes: letters of each stored axis; ``"nh"`` is heads and head size merged.
    """

    name: str
    axes: tuple[str, ...]


STORED: Mapping[str, Stored] = {
    "embed_vd": Stored("model.embed_tokens.weight", ("v", "d")),
    "norm_d": Stored("model.norm.weight", ("d",)),
    "head_dv": Stored("lm_head.weight", ("v", "d")),
    "attention_norm_d": Stored("input_layernorm.weight", ("d",)),
    "query_dnh": Stored("self_attn.q_proj.weight", ("nh", "d")),
    "key_dmh": Stored("self_attn.k_proj.weight", ("mh", "d")),
    "value_dmh": Stored("self_attn.v_proj.weight", ("mh", "d")),
    "out_nhd": Stored("self_attn.o_proj.weight", ("d", "nh")),
    "query_bias_nh": Stored("self_attn.q_proj.bias", ("nh",)),
    "key_bias_mh": Stored("self_attn.k_proj.bias", ("mh",)),
    "value_bias_mh": Stored("self_attn.v_proj.bias", ("mh",)),
    "query_norm_h": Stored("self_attn.q_norm.weight", ("h",)),
    "key_norm_h": Stored("self_attn.k_norm.weight", ("h",)),
    "mlp_norm_d": Stored("post_attention_layernorm.weight", ("d",)),
    "gate_df": Stored("mlp.gate_proj.weight", ("f", "d")),
    "up_df": Stored("mlp.up_proj.weight", ("f", "d")),
    "down_fd": Stored("mlp.down_proj.weight", ("d", "f")),
}
# Of the vision tower, as in Qwen2.5-VL.
STORED_VISION: Mapping[str, Stored] = {
    "patch_ctpqd": Stored("visual.patch_embed.proj.weight", ("d", "c", "t", "p", "q")),
    "merge_norm_d": Stored("visual.merger.ln_q.weight", ("d",)),
    "merge_up_aw": Stored("visual.merger.mlp.0.weight", ("w", "a")),
    "merge_up_bias_w": Stored("visual.merger.mlp.0.bias", ("w",)),
    "merge_down_wo": Stored("visual.merger.mlp.2.weight", ("o", "w")),
    "merge_down_bias_o": Stored("visual.merger.mlp.2.bias", ("o",)),
    "attention_norm_d": Stored("norm1.weight", ("d",)),
    "qkv_dcnh": Stored("attn.qkv.weight", ("cnh", "d")),
    "qkv_bias_cnh": Stored("attn.qkv.bias", ("cnh",)),
    "out_nhd": Stored("attn.proj.weight", ("d", "nh")),
    "out_bias_d": Stored("attn.proj.bias", ("d",)),
    "mlp_norm_d": Stored("norm2.weight", ("d",)),
    "gate_df": Stored("mlp.gate_proj.weight", ("f", "d")),
    "gate_bias_f": Stored("mlp.gate_proj.bias", ("f",)),
    "up_df": Stored("mlp.up_proj.weight", ("f", "d")),
    "up_bias_f": Stored("mlp.up_proj.bias", ("f",)),
    "down_fd": Stored("mlp.down_proj.weight", ("d", "f")),
    "down_bias_d": Stored("mlp.down_proj.bias", ("d",)),
}
# How newer releases of transformers call the parts of a model that sees.
_RENAMED = (("model.language_model.", "model."), ("model.visual.", "visual."))


def stored(names: tuple[str, ...]) -> Stored:
    """Where a parameter of this path is kept."""
    return (STORED_VISION if names[0] == "vision" else STORED)[names[-1]]


def tensor_name(names: tuple[str, ...], layer: int | None) -> str:
    """The tensor of a parameter, of one layer where it is stacked."""
    name = stored(names).name
    if layer is None:
        return name
    below = "visual.blocks" if names[0] == "vision" else "model.layers"
    return f"{below}.{layer}.{name}"


def known_name(name: str) -> str:
    """A stored tensor's name as it is called here."""
    for new, old in _RENAMED:
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def axis_sizes(config: PolicyConfig, names: tuple[str, ...]) -> dict[str, int]:
    """Sizes of the axes of a parameter of this path, by letter."""
    vision = config.vision
    if vision is not None and names[0] == "vision":
        return {
            "d": vision.width,
            "f": vision.mlp_width,
            "n": vision.heads,
            "h": vision.head_dim,
            "c": 3 if names[-1].startswith("qkv") else vision.channels,
            "t": vision.frames,
            "p": vision.patch,
            "q": vision.patch,
            "a": vision.merged_width,
            "w": vision.merged_width,
            "o": config.width,
        }
    return {
        "v": config.vocab_size,
        "d": config.width,
        "f": config.mlp_width,
        "n": config.heads,
        "m": config.kv_heads,
        "h": config.head_dim,
    }
