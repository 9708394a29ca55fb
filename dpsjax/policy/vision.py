"""The eye of a policy: the vision tower of Qwen2.5-VL (arXiv 2502.13923), in Flax NNX.

Pictures come as patches, padded to one number of patches per prompt, so one compilation serves
pictures of all sizes, several in a prompt, and prompts without any. Patches stand in the order in
which Qwen2.5-VL merges them: the ``merge * merge`` patches of a token are neighbours. Windows are
masks, not reorderings: nothing has to be moved, and padding costs what it costs anyway.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dpsjax import checks
from dpsjax.policy import blocks
from dpsjax.policy.blocks import (
    MASKED,
    constant,
    over_layers,
    recomputed,
    rms_norm,
    rotate,
    unstacked,
)
from dpsjax.policy.config import Compute
from dpsjax.policy.sharding import constrain
from dpsjax.policy.vision_config import VisionConfig
from dpsjax.types import Array, Bool, Float, Int, Shaped, UInt

__all__ = ["Images", "Vision", "prompt_positions"]

_THETA = 10_000.0  # of the rotation by rows and columns


class Images(NamedTuple):
    """The pictures of B prompts, as patches: those of a prompt's first picture, then of its second.

    Attributes:
        pixels: ``channels * patch * patch`` bytes of every patch. uint8[B, S, F].
        image: Which of the prompt's pictures a patch is of, -1 for padding. int32[B, S].
        row: Its row in that picture, in patches. int32[B, S].
        column: Its column. int32[B, S].
        span: Positions in the text that the whole picture takes. int32[B, S].
    """

    pixels: Array
    image: Array
    row: Array
    column: Array
    span: Array


def require_images(images: Images, prompts: int, vision: VisionConfig) -> None:
    """Refuse what are no pictures of so many prompts.

    Raises:
        TypeError: ``images`` are something else, or an array of another kind.
        ValueError: shapes do not fit each other, the prompts or the tower.
    """
    checks.require_type(Images, "Images, as of picture_batch", images=images)
    fields = zip(Images._fields[1:], images[1:], strict=True)
    checks.require_arrays(
        pixels=(images.pixels, "int B S F"), **{name: (value, "int B S") for name, value in fields}
    )
    rows, patches, numbers = images.pixels.shape
    if rows != prompts or numbers != vision.pixels or patches % vision.merge**2:
        raise ValueError(
            f"pixels has shape {images.pixels.shape}: it must be [{prompts}, patches, "
            f"{vision.pixels}], with a multiple of {vision.merge**2} patches"
        )


class VisionLayer(nnx.Module):
    """One block of the tower: attention over a picture or a window of it, and a gated MLP."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs):
        d, f, n, h = config.width, config.mlp_width, config.heads, config.head_dim
        residual = (2 * config.layers) ** -0.5

        weight = functools.partial(blocks.weight, rngs)
        self.config = config
        self.attention_norm_d = constant(1.0, d)
        self.qkv_dcnh = weight(d, 3, n, h, fan_in=d)
        self.qkv_bias_cnh = constant(0.0, 3, n, h)
        self.out_nhd = weight(n, h, d, fan_in=d, gain=residual)
        self.out_bias_d = constant(0.0, d)
        self.mlp_norm_d = constant(1.0, d)
        self.gate_df = weight(d, f, fan_in=d)
        self.gate_bias_f = constant(0.0, f)
        self.up_df = weight(d, f, fan_in=d)
        self.up_bias_f = constant(0.0, f)
        self.down_fd = weight(f, d, fan_in=f, gain=residual)
        self.down_bias_d = constant(0.0, d)

    def __call__(self, x: Array, angles: tuple[Array, Array], mask: Array, chunk: int) -> Array:
        """Transform patches.

        Args:
            x: ``[B, S, D]``.
            angles: cosine and sine, ``[B, S, h / 2]``.
            mask: int ``[B, S]``; patches with equal numbers see each other.
            chunk: patches whose scores exist at a time; 0 for all.
        """
        eps = self.config.norm_eps
        x = x + self._attention(rms_norm(x, self.attention_norm_d[...], eps), angles, mask, chunk)
        y = rms_norm(x, self.mlp_norm_d[...], eps)
        gate = _affine("bsd,df->bsf", y, self.gate_df, self.gate_bias_f)
        up = _affine("bsd,df->bsf", y, self.up_df, self.up_bias_f)
        hidden = constrain(jax.nn.silu(gate) * up, "bsf")
        return constrain(x + _affine("bsf,fd->bsd", hidden, self.down_fd, self.down_bias_d), "bsd")

    def _attention(self, x: Array, angles: tuple[Array, Array], groups: Array, chunk: int) -> Array:
        qkv = _affine("bsd,dcnh->cbsnh", x, self.qkv_dcnh, self.qkv_bias_cnh[...][:, None, None])
        query, key, value = qkv[0], qkv[1], qkv[2]
        query = rotate(query, angles) * jnp.asarray(self.config.head_dim**-0.5, x.dtype)
        key = rotate(key, angles)

        def attend(part: tuple[Array, Array]) -> Array:
            own, of = part
            form = "bsnh,btnh->bnst"
            scores = jnp.einsum(form, own, key, preferred_element_type=jnp.float32)
            see = (of[:, :, None] == groups[:, None, :])[:, None]
            weights = jax.nn.softmax(jnp.where(see, scores, jnp.float32(MASKED)), axis=-1)
            return jnp.einsum("bnst,btnh->bsnh", weights.astype(x.dtype), value)

        size = x.shape[1]
        if 0 < chunk < size:
            mixed = _in_chunks(attend, (query, groups), chunk)
        else:
            mixed = attend((query, groups))
        return _affine("bsnh,nhd->bsd", mixed, self.out_nhd, self.out_bias_d)


def _affine(form: str, x: Array, weight: nnx.Param, bias: nnx.Param | Array) -> Array:
    """A product with a bias added in float32."""
    wide = jnp.einsum(form, x, weight[...].astype(x.dtype), preferred_element_type=jnp.float32)
    bias = bias[...].astype(jnp.float32)
    return (wide + bias.reshape((1,) * (wide.ndim - bias.ndim) + bias.shape)).astype(x.dtype)


def _in_chunks(attend, parts: tuple[Array, Array], chunk: int) -> Array:
    """``attend`` for a few patches at a time: scores never exist for all of them."""
    size = parts[0].shape[1]

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, -size % chunk)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    out = jax.lax.map(jax.checkpoint(attend), jax.tree.map(split, parts))
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :size]


class Vision(nnx.Module):
    """The tower and its projection to the text's width.

    Attributes:
        config: the architecture.
        patch_ctpqd: the patch embedding, a convolution whose stride is its size.
        layers: one ``VisionLayer`` whose parameters have the layer axis in front.
        merge_norm_d: scale of the norm before merging.
        merge_up_aw: first product of the projection, and its bias.
        merge_down_wo: second product, and its bias.
    """

    def __init__(self, config: VisionConfig, out: int, *, rngs: nnx.Rngs):
        self.config = config
        m, p = config.merged_width, config.patch
        shape = (config.channels, config.frames, p, p, config.width)

        weight = functools.partial(blocks.weight, rngs)
        self.patch_ctpqd = weight(*shape, fan_in=config.pixels * config.frames)
        stack = nnx.vmap(lambda keys: VisionLayer(config, keys))
        self.layers = nnx.split_rngs(splits=config.layers)(stack)(rngs)
        self.merge_norm_d = nnx.Param(jnp.ones((config.width,), jnp.float32))
        self.merge_up_aw = weight(m, m, fan_in=m)
        self.merge_up_bias_w = nnx.Param(jnp.zeros((m,), jnp.float32))
        self.merge_down_wo = weight(m, out, fan_in=m)
        self.merge_down_bias_o = nnx.Param(jnp.zeros((out,), jnp.float32))

    def __call__(self, images: Images, compute: Compute) -> Shaped[Array, "B M D"]:
        """Embeddings of the tokens that pictures are to the text.

        Args:
            images: of B prompts, S patches each.
            compute: dtype, remat, layer scanning and ``query_chunk``, as in the text.

        Returns:
            ``[B, S / merge**2, D]``; what stands where there is no picture means nothing.
        """
        config = self.config
        x = constrain(self._patches(images.pixels).astype(compute.dtype), "bsd")
        angles = _angles(images, config)
        side = config.window // config.patch
        cells = images.row // side * jnp.int32(1 << 12) + images.column // side
        whole, window = images.image, jnp.where(images.image < 0, -1, cells)
        window = window + images.image * jnp.int32(1 << 24)  # no window is of two pictures
        graph, stack = nnx.split(self.layers)
        full = np.isin(np.arange(config.layers), config.full_layers)

        def body(x: Array, inputs: tuple) -> tuple[Array, None]:
            layer, (sees_all,) = inputs
            mask = jnp.where(sees_all, whole, window)
            return nnx.merge(graph, layer)(x, angles, mask, compute.query_chunk), None

        weights = stack if compute.scan_layers else unstacked(stack)
        x, _ = over_layers(recomputed(body, compute), x, weights, (jnp.asarray(full),), compute)
        return self._merged(x)

    def _patches(self, pixels: UInt[Array, "B S F"]) -> Float[Array, "B S D"]:
        """Normalised pixels times the embedding; all frames of a still picture are the same."""
        config = self.config
        weight = self.patch_ctpqd[...].astype(jnp.float32).sum(axis=1)
        scaled = pixels.reshape(*pixels.shape[:2], config.channels, -1).astype(jnp.float32)
        mean, std = (jnp.asarray(values, jnp.float32) for values in (config.mean, config.std))
        unit = (scaled / jnp.float32(255) - mean[None, None, :, None]) / std[None, None, :, None]
        flat = unit.reshape(*pixels.shape[:2], -1)
        return jnp.einsum("bsx,xd->bsd", flat, weight.reshape(flat.shape[-1], -1))

    def _merged(self, x: Array) -> Array:
        """The patches of a token side by side, projected to the text's width."""
        x = rms_norm(x, self.merge_norm_d[...], self.config.norm_eps)
        x = x.reshape(x.shape[0], -1, self.config.merged_width)
        hidden = _affine("bsa,aw->bsw", x, self.merge_up_aw, self.merge_up_bias_w)
        hidden = jax.nn.gelu(hidden, approximate=False)
        return _affine("bsw,wo->bso", hidden, self.merge_down_wo, self.merge_down_bias_o)


def _angles(images: Images, config: VisionConfig) -> tuple[Array, Array]:
    """Cosine and sine ``[B, S, h / 2]``: the first half of the pairs turn with the row."""
    pairs = config.head_dim // 4
    frequency = _THETA ** -(np.arange(pairs, dtype=np.float64) / pairs)
    frequency = jnp.asarray(frequency.astype(np.float32)).reshape(1, 1, -1)
    turns = [
        place.astype(jnp.float32)[..., None] * frequency for place in (images.row, images.column)
    ]
    angle = jnp.concatenate(turns, axis=-1)
    return jnp.cos(angle), jnp.sin(angle)


class _Tokens(NamedTuple):
    """The pictures' tokens, M a prompt; fields of ``Images``, rows and columns in tokens."""

    image: Array
    row: Array
    column: Array
    span: Array


def _tokens(images: Images, vision: VisionConfig) -> _Tokens:
    own = [field[:, :: vision.merge**2] for field in images[1:]]
    return _Tokens(own[0], own[1] // vision.merge, own[2] // vision.merge, own[3])


def _places(
    prompt: Array, prompt_mask: Array, vision: VisionConfig
) -> tuple[Bool[Array, "B P"], Int[Array, "B P"]]:
    """Where a prompt's tokens are pictures, and which of the pictures' tokens stands there."""
    seen = (prompt == vision.image_token) & prompt_mask
    return seen, jnp.maximum(jnp.cumsum(seen, axis=1, dtype=jnp.int32) - 1, 0)


def prompt_positions(
    prompt: Int[Array, "B P"],
    prompt_mask: Bool[Array, "B P"],
    images: Images,
    vision: VisionConfig,
) -> Int[Array, "B P 3"]:
    """Multimodal positions: a token's time, row and column.

    A text's tokens count up, all three alike. A picture stands still in time, its rows and columns
    count from there, and the text goes on after the larger of both.

    Args:
        prompt: int32, left-padded, with a token for every token of the pictures.
        prompt_mask: True on real tokens.
        images: of the prompts.
        vision: says which token stands for pictures.
    """
    seen, number = _places(prompt, prompt_mask, vision)
    tokens = _tokens(images, vision)
    at = [jnp.take_along_axis(field, number, axis=1) for field in tokens]
    image, row, column, span = at
    before = jnp.take_along_axis(tokens.image, jnp.maximum(number - 1, 0), axis=1)
    first = seen & ((number == 0) | (image != before))
    step = jnp.where(seen, jnp.where(first, span, 0), prompt_mask.astype(jnp.int32))
    total = jnp.cumsum(step, axis=1, dtype=jnp.int32)
    start = jnp.where(seen, total - span, jnp.maximum(total - 1, 0))
    zero = jnp.zeros_like(start)
    added = jnp.stack([zero, jnp.where(seen, row, zero), jnp.where(seen, column, zero)], axis=-1)
    return start[..., None] + added


def require_counted(
    prompt: Array, prompt_mask: Array, images: Images, vision: VisionConfig
) -> None:
    """Refuse prompts with another number of picture tokens than their pictures have."""
    wanted = (prompt == vision.image_token) & prompt_mask
    wanted = wanted.sum(axis=1, dtype=jnp.int32)
    made = (_tokens(images, vision).image >= 0).sum(axis=1, dtype=jnp.int32)
    checks.require(
        wanted == made,
        "prompts have {wanted} tokens for pictures, and their pictures {made}",
        wanted=wanted,
        made=made,
    )


def with_pictures(
    embedded: Shaped[Array, "B P D"],
    pictures: Shaped[Array, "B M D"],
    prompt: Int[Array, "B P"],
    prompt_mask: Bool[Array, "B P"],
    vision: VisionConfig,
) -> Shaped[Array, "B P D"]:
    """Embeddings of a prompt with those of pictures in the places of its picture tokens."""
    seen, number = _places(prompt, prompt_mask, vision)
    chosen = jnp.take_along_axis(pictures, number[..., None], axis=1)
    return jnp.where(seen[..., None], chosen.astype(embedded.dtype), embedded)
