"""The policy: a decoder-only transformer of today's open-weights family, in Flax NNX.

One function, ``Layer.__call__``, is the definition. It maps a *segment* of tokens to hidden states,
given the keys and values of earlier segments. Training, prefill and decoding are that one function
on different segments: a prompt ``[B, 1, P]`` alone; responses ``[B, G, T]`` that all look back at
their prompt's keys and values, which exist once per prompt; one token ``[B, G, 1]`` that looks back
at its prompt and at its own cache.
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
from dpsjax.policy.config import Compute, PolicyConfig, Rope
from dpsjax.policy.sharding import constrain
from dpsjax.policy.vision import Vision
from dpsjax.types import Array, Bool, Float, Int, PyTree, Shaped

__all__ = ["Block", "KeyValue", "Layer", "Policy", "abstract_policy", "rope_angles"]


class KeyValue(NamedTuple):
    """Keys and values of a segment.

    Attributes:
        key: ``[B, m, t, h]`` if shared by a prompt's rollouts, else ``[B, m, G, t, h]``.
        value: the same shape.
    """

    key: Array
    value: Array


class Block(NamedTuple):
    """Earlier tokens that a segment may look at.

    Attributes:
        layers: ``KeyValue`` per layer: a tuple, or one stacked ``KeyValue`` under ``scan_layers``.
        mask: bool ``[B, t]``, or ``[t]`` for all; which of the tokens are visible.
    """

    layers: PyTree
    mask: Array


def rope_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Angle per position of every rotated pair, float32 ``[h / 2]``."""
    frequency = 1.0 / rope.theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.scaling == "linear":
        frequency = frequency / rope.factor
    elif rope.scaling == "llama3":
        turns = rope.original_positions * frequency / (2 * np.pi)
        blend = (turns - rope.low_frequency) / (rope.high_frequency - rope.low_frequency)
        blend = np.clip(blend, 0.0, 1.0)
        frequency = blend * frequency + (1 - blend) * frequency / rope.factor
    return frequency.astype(np.float32)


def rope_angles(
    positions: Int[Array, "B G S *sections"], rope: Rope, head_dim: int
) -> tuple[Float[Array, "B G S half"], Float[Array, "B G S half"]]:
    """Cosine and sine of every pair's angle at every position, float32.

    Args:
        positions: ``[B, G, S]``; or with pictures ``[B, G, S, 3]``, a token's time, row and column,
            each for the pairs of its own section (multimodal RoPE, arXiv 2409.12191).
        rope: with sections, if there are three positions.
        head_dim: of a head.
    """
    frequency = jnp.asarray(rope_frequencies(rope, head_dim)).reshape(1, 1, 1, -1)
    if positions.ndim == 4:
        positions = positions[..., np.repeat(np.arange(3), rope.sections)]
    else:
        positions = positions[..., None]
    angle = positions.astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def _scores(query: Array, key: Array) -> Array:
    """Attention scores ``[B, m, G, r, S, t]`` of queries ``[B, m, G, r, S, h]``, in float32.

    Batched axes come first on both sides, in one order: no product needs a transposed copy.
    """
    form = "bmgrsh,bmth->bmgrst" if key.ndim == 4 else "bmgrsh,bmgth->bmgrst"
    return jnp.einsum(form, query, key, preferred_element_type=jnp.float32)


def _gather(weights: Array, value: Array) -> Array:
    """Weighted sums of values: ``[B, m, G, r, S, h]``."""
    form = "bmgrst,bmth->bmgrsh" if value.ndim == 4 else "bmgrst,bmgth->bmgrsh"
    return jnp.einsum(form, weights.astype(value.dtype), value, preferred_element_type=jnp.float32)


def _attend(query: Array, blocks: list[tuple[KeyValue, Array]]) -> Array:
    """Softmax attention over several blocks of keys, normalised over all of them together.

    The blocks are never concatenated: that would copy every prompt's keys once per rollout.

    Args:
        query: ``[B, m, G, r, S, h]``, scaled.
        blocks: keys and values with a mask broadcastable to ``[B, m, G, r, S, t]``.
    """
    scores = [
        jnp.where(mask, _scores(query, kv.key), jnp.asarray(MASKED, jnp.float32))
        for kv, mask in blocks
    ]
    peak = scores[0].max(axis=-1, keepdims=True)
    for other in scores[1:]:
        peak = jnp.maximum(peak, other.max(axis=-1, keepdims=True))
    weights = [jnp.exp(score - jax.lax.stop_gradient(peak)) for score in scores]
    totals = [weight.sum(axis=-1, keepdims=True) for weight in weights]
    mixed = [_gather(weight, kv.value) for weight, (kv, _) in zip(weights, blocks, strict=True)]
    return functools.reduce(jnp.add, mixed) / functools.reduce(jnp.add, totals)


class Layer(nnx.Module):
    """One block: attention and gated MLP, each behind an RMSNorm and added to the residual."""

    def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
        d, f, h = config.width, config.mlp_width, config.head_dim
        n, m = config.heads, config.kv_heads
        residual = (2 * config.layers) ** -0.5  # GPT-2: keeps the residual's variance over depth

        weight = functools.partial(blocks.weight, rngs)
        self.config = config
        self.attention_norm_d = constant(1.0, d)
        self.query_dnh = weight(d, n, h, fan_in=d)
        self.key_dmh = weight(d, m, h, fan_in=d)
        self.value_dmh = weight(d, m, h, fan_in=d)
        self.out_nhd = weight(n, h, d, fan_in=n * h, gain=residual)
        self.mlp_norm_d = constant(1.0, d)
        self.gate_df = weight(d, f, fan_in=d)
        self.up_df = weight(d, f, fan_in=d)
        self.down_fd = weight(f, d, fan_in=f, gain=residual)
        if config.attention_bias:
            self.query_bias_nh = constant(0.0, n, h)
            self.key_bias_mh = constant(0.0, m, h)
            self.value_bias_mh = constant(0.0, m, h)
        if config.qk_norm:
            self.query_norm_h = constant(1.0, h)
            self.key_norm_h = constant(1.0, h)

    def _project(self, x: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values ``[B, G, S, heads, h]``."""
        heads = []
        for weight in (self.query_dnh, self.key_dmh, self.value_dmh):
            heads.append(jnp.einsum("bgsd,dnh->bgsnh", x, weight[...].astype(x.dtype)))
        if self.config.attention_bias:
            for i, bias in enumerate((self.query_bias_nh, self.key_bias_mh, self.value_bias_mh)):
                wide = (
                    heads[i].astype(jnp.float32) + bias[...].astype(jnp.float32)[None, None, None]
                )
                heads[i] = wide.astype(x.dtype)
        query, key, value = heads
        if self.config.qk_norm:
            query = rms_norm(query, self.query_norm_h[...], self.config.norm_eps)
            key = rms_norm(key, self.key_norm_h[...], self.config.norm_eps)
        return query, key, value

    def _attention(
        self, x: Array, angles: tuple[Array, Array], mask: Array, earlier: list, chunk: int
    ) -> tuple[Array, KeyValue]:
        """Attention of a segment over itself and the earlier blocks."""
        config = self.config
        query, key, value = self._project(x)
        b, g, s = x.shape[:3]
        query = rotate(query, angles) * jnp.asarray(config.head_dim**-0.5, x.dtype)
        query = query.reshape(b, g, s, config.kv_heads, -1, config.head_dim)
        query = query.transpose(0, 3, 1, 4, 2, 5)
        # [B, m, G, t, h] is how the batched products read them: a cache is never transposed
        kv = KeyValue(
            constrain(rotate(key, angles).transpose(0, 3, 1, 2, 4), "bmgth"),
            constrain(value.transpose(0, 3, 1, 2, 4), "bmgth"),
        )
        blocks = [*earlier, (kv, mask[:, None, :, None])]
        chunked = 0 < chunk < s
        mixed = _attend_chunks(query, blocks, chunk) if chunked else _attend(query, blocks)
        mixed = mixed.astype(x.dtype).transpose(0, 2, 4, 1, 3, 5)
        mixed = mixed.reshape(b, g, s, config.heads, config.head_dim)
        return jnp.einsum("bgsnh,nhd->bgsd", mixed, self.out_nhd[...].astype(x.dtype)), kv

    def _mlp(self, x: Array) -> Array:
        # einsum, as everywhere: Qwix puts adapters beside products of that kind
        gate = jnp.einsum("bgsd,df->bgsf", x, self.gate_df[...].astype(x.dtype))
        up = jnp.einsum("bgsd,df->bgsf", x, self.up_df[...].astype(x.dtype))
        hidden = constrain(jax.nn.silu(gate) * up, "bgsf")
        return jnp.einsum("bgsf,fd->bgsd", hidden, self.down_fd[...].astype(x.dtype))

    def __call__(
        self, x: Array, angles: tuple[Array, Array], mask: Array, earlier: list, chunk: int
    ) -> tuple[Array, KeyValue]:
        """Transform a segment.

        Args:
            x: ``[B, G, S, D]``.
            angles: of ``rope_angles``.
            mask: bool ``[B, G, S, S]`` (its first two axes may be 1), inside the segment.
            earlier: pairs of ``KeyValue`` and mask ``[B, 1, 1, 1, 1, t]``.
            chunk: queries whose scores exist at a time; 0 for all.

        Returns:
            The new ``x`` and this segment's keys and values ``[B, m, G, S, h]``.
        """
        eps = self.config.norm_eps
        mixed, kv = self._attention(
            rms_norm(x, self.attention_norm_d[...], eps), angles, mask, earlier, chunk
        )
        x = constrain(x + mixed, "bgsd")
        x = x + self._mlp(rms_norm(x, self.mlp_norm_d[...], eps))
        return constrain(x, "bgsd"), kv


def _attend_chunks(query: Array, blocks: list, chunk: int) -> Array:
    """``_attend`` for a few query positions at a time: scores never exist for the whole segment."""
    s = query.shape[4]
    pad = -s % chunk
    own, mask = blocks[-1]
    mask = jnp.broadcast_to(mask, (*mask.shape[:4], s, mask.shape[-1]))
    query = jnp.pad(query, [(0, 0)] * 4 + [(0, pad), (0, 0)])
    mask = jnp.pad(mask, [(0, 0)] * 4 + [(0, pad), (0, 0)])

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(*x.shape[:4], -1, chunk, x.shape[-1]), 4, 0)

    @jax.checkpoint
    def one(part: tuple[Array, Array]) -> Array:
        return _attend(part[0], [*blocks[:-1], (own, part[1])])

    mixed = jnp.moveaxis(jax.lax.map(one, (split(query), split(mask))), 0, 4)
    return mixed.reshape(*query.shape[:4], s + pad, -1)[:, :, :, :, :s]


class Policy(nnx.Module):
    """The transformer. Parameters of all layers are stacked on a leading axis.

    Attributes:
        config: the architecture; part of the graph definition, not of the parameters.
        compute: dtype, remat and layer scanning.
        embed_vd: token embedding.
        layers: one ``Layer`` whose parameters have the layer axis in front.
        norm_d: scale of the last norm.
        head_dv: output head, absent when embeddings are tied.
        vision: of a policy that sees pictures.
    """

    def __init__(self, config: PolicyConfig, compute: Compute | None = None, *, rngs: nnx.Rngs):
        checks.require_type(PolicyConfig, "a PolicyConfig", config=config)
        checks.require_type(Compute, "a Compute", **checks.given(compute=compute))
        checks.require_type(nnx.Rngs, "an nnx.Rngs", rngs=rngs)
        self.config = config
        self.compute = Compute() if compute is None else compute
        shape = (config.vocab_size, config.width)
        # 0.02 (GPT-2): tied logits of unit-variance states then start near zero
        self.embed_vd = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))
        stack = nnx.vmap(lambda keys: Layer(config, keys))
        self.layers = nnx.split_rngs(splits=config.layers)(stack)(rngs)
        self.norm_d = nnx.Param(jnp.ones((config.width,), jnp.float32))
        if not config.tied_embeddings:
            head = jax.random.normal(rngs.params(), shape[::-1], jnp.float32)
            self.head_dv = nnx.Param(config.width**-0.5 * head)
        if config.vision is not None:
            self.vision = Vision(config.vision, config.width, rngs=rngs)

    def segment(
        self,
        tokens: Int[Array, "B G S"],
        positions: Int[Array, "B G S *sections"],
        mask: Bool[Array, "b g S S"],
        earlier: tuple[Block, ...] = (),
        weights: PyTree = None,
        inputs: Shaped[Array, "B G S D"] | None = None,
    ) -> tuple[Shaped[Array, "B G S D"], PyTree]:
        """Hidden states of a segment and its keys and values per layer.

        Args:
            tokens: int32.
            positions: int32, for RoPE; see :func:`rope_angles`.
            mask: who sees whom inside the segment; leading axes may be 1.
            earlier: blocks of tokens before the segment, all visible to all of it but for masks.
            weights: of ``layer_weights``, where a loop should not take the stack apart each time.
            inputs: what stands for the tokens; None for their embeddings.

        Returns:
            Hidden states after the last norm (compute dtype), and per layer ``KeyValue`` in the
            form that ``Block.layers`` takes, with ``G`` kept.
        """
        config, compute = self.config, self.compute
        x = constrain(self.embedded(tokens) if inputs is None else inputs, "bgsd")
        angles = rope_angles(positions, config.rope, config.head_dim)
        masks = [block.mask.reshape(-1, 1, 1, 1, 1, block.mask.shape[-1]) for block in earlier]
        graph = nnx.split(self.layers)[0]

        def body(x: Array, inputs: tuple) -> tuple[Array, KeyValue]:
            layer, blocks = inputs
            pairs = list(zip(blocks, masks, strict=True))
            return nnx.merge(graph, layer)(x, angles, mask, pairs, compute.query_chunk)

        weights = self.layer_weights() if weights is None else weights
        blocks = tuple(block.layers for block in earlier)
        x, layers = over_layers(recomputed(body, compute), x, weights, blocks, compute)
        return rms_norm(x, self.norm_d[...], config.norm_eps), layers

    def embedded(self, tokens: Int[Array, "*shape"]) -> Shaped[Array, "*shape D"]:
        """Embeddings of tokens, in the compute dtype."""
        return self.embed_vd[...][tokens].astype(self.compute.dtype)

    def layer_weights(self) -> PyTree:
        """Parameters of the layers: stacked for a scan, or a tuple with one part per layer."""
        stack = nnx.split(self.layers)[1]
        return stack if self.compute.scan_layers else unstacked(stack)

    def logits(self, hidden: Shaped[Array, "*shape D"]) -> Float[Array, "*shape V"]:
        """Logits, float32, of hidden states."""
        if self.config.tied_embeddings:
            form, head = "...d,vd->...v", self.embed_vd[...]
        else:
            form, head = "...d,dv->...v", self.head_dv[...]
        head = head.astype(hidden.dtype)
        return jnp.einsum(form, hidden, head, preferred_element_type=jnp.float32)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
    ) -> Shaped[Array, "B T D"]:
        """Causal hidden states of whole sequences; ``logits`` maps them to the vocabulary.

        Args:
            tokens: int32.
            positions: int32; ``cumsum(mask) - 1`` for padding on either side.
            mask: True on real tokens; nobody sees the others, and their own rows mean nothing.
        """
        size = tokens.shape[1]
        causal = jnp.tril(jnp.ones((size, size), bool))[None, None] & mask[:, None, None, :]
        return self.segment(tokens[:, None], positions[:, None], causal)[0][:, 0]


def abstract_policy(
    config: PolicyConfig, compute: Compute | None = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and parameter shapes of a policy, without computing or storing anything.

    Returns:
        ``(graphdef, params)``: ``nnx.merge(graphdef, arrays)`` makes a policy of loaded arrays;
        ``params`` has ``jax.ShapeDtypeStruct`` for leaves.
    """
    policy = nnx.eval_shape(lambda: Policy(config, compute, rngs=nnx.Rngs(0)))
    return nnx.split(policy)
