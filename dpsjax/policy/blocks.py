"""What the transformers of text and of pictures share: the norm, rotation, a stack of layers."""

import jax
import jax.numpy as jnp
from flax import nnx

from dpsjax.policy.config import Compute
from dpsjax.types import Array, PyTree, Shaped

__all__ = [
    "MASKED",
    "constant",
    "over_layers",
    "recomputed",
    "rms_norm",
    "rotate",
    "unstacked",
    "weight",
]

MASKED = -1e30  # finite: a row without any visible key stays free of NaN, also in its gradient


def weight(rngs: nnx.Rngs, *shape: int, fan_in: int, gain: float = 1.0) -> nnx.Param:
    """A float32 parameter of normal numbers, of deviation ``gain / sqrt(fan_in)``."""
    scale = gain * fan_in**-0.5
    return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))


def constant(value: float, *shape: int) -> nnx.Param:
    """A float32 parameter that begins with one value everywhere."""
    return nnx.Param(jnp.full(shape, value, jnp.float32))


def rms_norm(x: Shaped[Array, "*shape d"], scale: Array, eps: float) -> Shaped[Array, "*shape d"]:
    """Root-mean-square norm (Zhang and Sennrich 2019), computed in float32."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    unit = wide * jax.lax.rsqrt(mean_square + jnp.asarray(eps, wide.dtype))
    return (unit * scale.astype(wide.dtype).reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def rotate(x: Array, angles: tuple[Array, Array]) -> Array:
    """Apply RoPE to ``[..., S, heads, h]``; pairs are (i, i + h/2), as in Llama checkpoints."""
    cos, sin = (angle[..., None, :].astype(x.dtype) for angle in angles)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def recomputed(body, compute: Compute):
    """A layer of which the backward pass recomputes what ``compute.remat`` says."""
    if compute.remat == "none":
        return body
    policies = jax.checkpoint_policies
    keep = policies.dots_with_no_batch_dims_saveable if compute.remat == "dots" else None
    return jax.checkpoint(body, policy=keep, prevent_cse=not compute.scan_layers)


def unstacked(stack: PyTree) -> tuple[PyTree, ...]:
    """A tuple with one part per layer, of parameters stacked on a leading axis."""
    leaves, tree = jax.tree.flatten(stack)
    # unstack is one split, whose gradient is one concatenation (indexing's would add L arrays)
    layers = zip(*(jnp.unstack(leaf) for leaf in leaves), strict=True)
    return tuple(jax.tree.unflatten(tree, layer) for layer in layers)


def over_layers(body, x: Array, weights: PyTree, blocks: tuple, compute: Compute):
    """Run ``body`` layer by layer: scanned over stacks, or unrolled over tuples."""
    if compute.scan_layers:
        return jax.lax.scan(body, x, (weights, blocks))
    outputs = []
    for i, layer in enumerate(weights):
        x, kv = body(x, (layer, tuple(layers[i] for layers in blocks)))
        outputs.append(kv)
    return x, tuple(outputs)
