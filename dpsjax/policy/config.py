"""What a policy is, as frozen data: Qwen2, Qwen3 and Llama-3 are settings of one architecture."""

import dataclasses
from typing import Any, Literal, get_args

from dpsjax import checks
from dpsjax.policy.vision_config import VisionConfig

Scaling = Literal["none", "linear", "llama3"]
Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]
DecodeWeights = Literal["gathered", "sharded"]

__all__ = ["Compute", "PolicyConfig", "Rope", "tiny_config"]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; use one of {', '.join(allowed)}")


def _positive(**values: float | int) -> None:
    checks.require_real(**values)
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}={value!r} must be positive and finite")


def _sizes(**values: int) -> None:
    checks.require_integers(**values)
    _positive(**values)


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) and its long-context scaling.

    Attributes:
        theta: base of the geometric frequencies.
        scaling: ``"linear"`` divides every frequency by ``factor``; ``"llama3"`` divides only the
            wavelengths longer than ``original_positions / low_frequency`` and blends up to
            ``original_positions / high_frequency`` (Llama 3.1).
        factor: how many times longer the scaled context is.
        low_frequency: ``low_freq_factor`` of a Llama configuration.
        high_frequency: ``high_freq_factor`` of a Llama configuration.
        original_positions: context length before scaling.
        max_positions: longest context the checkpoint is made for; recorded, not enforced.
        sections: pairs of a head that turn with a token's time, row and column in a policy that
            sees pictures; their sum is half a head. Empty for texts alone.
    """

    theta: float = 10_000.0
    scaling: Scaling = "none"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_positions: int = 8192
    max_positions: int = 32_768
    sections: tuple[int, ...] = ()

    def __post_init__(self):
        _one_of("Rope.scaling", self.scaling, get_args(Scaling))
        _positive(theta=self.theta, factor=self.factor)
        _positive(low_frequency=self.low_frequency, high_frequency=self.high_frequency)
        _sizes(original_positions=self.original_positions, max_positions=self.max_positions)
        checks.require_items(int, "a number of pairs", sections=self.sections)
        if len(self.sections) not in (0, 3) or min(self.sections, default=0) < 0:
            raise ValueError(f"Rope.sections={self.sections} must be three numbers of pairs")
        if self.scaling == "llama3" and not self.high_frequency > self.low_frequency:
            raise ValueError(
                f"Rope.high_frequency={self.high_frequency} must exceed "
                f"low_frequency={self.low_frequency} for llama3 scaling"
            )


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the same function is computed: nothing here changes the parameters.

    Attributes:
        dtype: of matrix products and activations; parameters, norms, biases and softmax stay
            float32.
        scan_layers: one compiled layer scanned over the stack (fast to compile, right for deep
            models) instead of an unrolled program (fastest to run for a few layers).
        remat: what the backward pass recomputes: ``"none"``, ``"full"`` layers, or all but the
            results of matrix products (``"dots"``).
        query_chunk: attention scores exist for this many query positions at a time; 0 for all.
        decode_weights: on a mesh with ``fsdp`` ways, generation holds the weights ``"gathered"``
            (a copy in ``dtype``, divided by ``tensor`` alone) or gathers them layer by layer in
            every decoding step (``"sharded"``: slower by far, for models that do not fit else).
        waves: generation takes a prompt's rollouts in this many turns, one after another, and
            needs that many times less memory for keys and values; must divide the rollouts.
    """

    dtype: Dtype = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    query_chunk: int = 0
    decode_weights: DecodeWeights = "gathered"
    waves: int = 1

    def __post_init__(self):
        _one_of("Compute.dtype", self.dtype, get_args(Dtype))
        _one_of("Compute.remat", self.remat, get_args(Remat))
        _one_of("Compute.decode_weights", self.decode_weights, get_args(DecodeWeights))
        _sizes(waves=self.waves)
        checks.require_type(bool, "True or False", scan_layers=self.scan_layers)
        checks.require_integers(query_chunk=self.query_chunk)
        if self.query_chunk < 0:
            raise ValueError(f"Compute.query_chunk={self.query_chunk} must be 0 (off) or positive")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Shape of a decoder-only transformer (RMSNorm, RoPE, SwiGLU, grouped-query attention).

    Attributes:
        vocab_size: ``V``.
        width: ``D``, of the residual stream.
        mlp_width: of the gated hidden layer.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads; must divide ``heads``.
        head_dim: size of a head, even; ``heads * head_dim`` need not be ``width``.
        tied_embeddings: the output head is the transposed embedding.
        attention_bias: biases on queries, keys and values (Qwen2).
        qk_norm: RMSNorm of queries and keys per head (Qwen3).
        norm_eps: added to the mean square in every RMSNorm.
        rope: positions; see ``Rope``. How to compute is given apart, as ``Compute``.
        vision: of a policy that sees pictures (Qwen2.5-VL); needs ``rope.sections``.

    >>> tiny_config(vocab_size=20).num_params()
    306720
    """

    vocab_size: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied_embeddings: bool = True
    attention_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-6
    rope: Rope = Rope()
    vision: VisionConfig | None = None

    def __post_init__(self):
        _sizes(
            vocab_size=self.vocab_size,
            width=self.width,
            mlp_width=self.mlp_width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
        )
        _positive(norm_eps=self.norm_eps)
        checks.require_type(
            bool,
            "True or False",
            tied_embeddings=self.tied_embeddings,
            attention_bias=self.attention_bias,
            qk_norm=self.qk_norm,
        )
        checks.require_type(Rope, "a Rope", rope=self.rope)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: RoPE rotates pairs")
        checks.require_type(VisionConfig, "a VisionConfig", **checks.given(vision=self.vision))
        if self.vision and 2 * sum(self.rope.sections) != self.head_dim:
            raise ValueError(
                f"rope.sections={self.rope.sections} must have the sum head_dim / 2 = "
                f"{self.head_dim // 2} in a policy that sees pictures"
            )
        if self.vision and self.vision.image_token >= self.vocab_size:
            raise ValueError(f"image_token={self.vision.image_token} is not in the vocabulary")

    def num_params(self) -> int:
        """Number of parameters, from the shape alone."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = 2 * self.width * (query + key) + 3 * self.width * self.mlp_width + 2 * self.width
        layer += self.attention_bias * (query + 2 * key) + self.qk_norm * 2 * self.head_dim
        embeddings = self.vocab_size * self.width * (1 if self.tied_embeddings else 2)
        seen = self.vision.num_params(self.width) if self.vision else 0
        return embeddings + self.layers * layer + self.width + seen

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-serialisable form; ``from_dict`` reverses it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PolicyConfig":
        """Rebuild a configuration written by ``to_dict``.

        Raises:
            TypeError: ``values`` is no dictionary, or a field is of another type.
            ValueError: a field is unknown, missing or out of range.
        """
        checks.require_type(dict, "a dictionary, as of to_dict", values=values)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known, key=str):
            raise ValueError(f"unknown PolicyConfig fields: {', '.join(map(str, unknown))}")
        try:
            vision = values.get("vision")
            parts = {
                "rope": Rope(**_tuples(values.get("rope", {}))),
                "vision": None if vision is None else VisionConfig(**_tuples(vision)),
            }
            return cls(**{**values, **parts})
        except TypeError as error:
            raise ValueError(f"values={values!r} are not a PolicyConfig: {error}") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists, as JSON has them, as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def tiny_config(vocab_size: int) -> PolicyConfig:
    """The laptop policy: 3 layers of width 96, about 0.3 million parameters.

    >>> tiny_config(20).width
    96
    """
    return PolicyConfig(
        vocab_size=vocab_size, width=96, mlp_width=256, layers=3, heads=4, kv_heads=2, head_dim=24
    )
