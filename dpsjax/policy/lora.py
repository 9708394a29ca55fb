"""LoRA (Hu et al. 2021, arXiv 2106.09685) with Qwix (extra ``lora``).

Qwix runs a layer once to see which products take an adapter, and makes the two factors ``A`` and
``B`` of each. The policy is then computed with ``W + alpha / rank * A B`` in the place of ``W``,
which is the function of Qwix's own ``x W + alpha / rank * (x A) B``. So there is one matrix to
decode with, the layers stay one stack, and nothing has to be intercepted where JAX differentiates
or scans them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dpsjax import checks
from dpsjax.policy.config import PolicyConfig
from dpsjax.policy.transformer import Layer, rope_angles
from dpsjax.types import Key, PyTree

__all__ = ["init_lora", "merge_lora"]


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise ImportError(
            "qwix is not installed; install it with: pip install 'dpsjax[lora]'"
        ) from error
    return qwix


def adapted_layer(config: PolicyConfig, rank: int, alpha: float, rngs: nnx.Rngs) -> nnx.Module:
    """A layer with random weights in which Qwix has put adapters.

    Args:
        config: the architecture.
        rank: columns of ``A``, rows of ``B``.
        alpha: the adapter counts ``alpha / rank`` times.
        rngs: of the weights and the adapters.

    Returns:
        a layer that Qwix intercepts.

    Raises:
        ImportError: the extra ``lora`` is not installed.
    """
    qwix = _qwix()
    provider = qwix.LoraProvider(module_path=".*", op_names=("einsum",), rank=rank, alpha=alpha)
    x = jnp.zeros((1, 1, 1, config.width), jnp.float32)
    angles = rope_angles(jnp.zeros((1, 1, 1), jnp.int32), config.rope, config.head_dim)
    mask = jnp.ones((1, 1, 1, 1), bool)
    layer = Layer(config, rngs)
    return qwix.apply_lora_to_model(layer, provider, x, angles, mask, [], 0, rngs=rngs)


def init_lora(key: Key, config: PolicyConfig, rank: int, alpha: float) -> PyTree:
    """Adapters for a policy, ``B`` = 0: the policy starts as it is without them.

    Args:
        key: of the factors ``A``.
        config: the architecture.
        rank: at least 1.
        alpha: see :func:`adapted_layer`.

    Returns:
        ``{"layers": {"query_dnh": {"a": float32[L, D, rank], "b": float32[L, rank, n, h]}, ...}}``
        for every matrix of the layers.

    Raises:
        TypeError: an argument is something else.
        ValueError: ``rank`` or ``alpha`` is not positive.
        ImportError: the extra ``lora`` is not installed.
    """
    checks.require_key(key=key)
    checks.require_type(PolicyConfig, "a PolicyConfig", config=config)
    checks.require_integers(rank=rank)
    checks.require_real(alpha=alpha)
    if rank < 1 or not 0 < alpha < float("inf"):
        raise ValueError(f"lora_rank={rank!r} and lora_alpha={alpha!r} must be positive")

    def one(key: Key) -> dict[str, dict[str, jax.Array]]:
        layer = adapted_layer(config, rank, alpha, nnx.Rngs(params=key))
        return factors(layer)

    return {"layers": jax.vmap(one)(jax.random.split(key, config.layers))}


def factors(layer: nnx.Module) -> dict[str, dict[str, jax.Array]]:
    """The two factors of every adapter in a layer of :func:`adapted_layer`."""
    found: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(layer, nnx.LoRAParam)):
        name, _, part = str(path[-1]).rpartition("_lora_")
        found.setdefault(name, {})[part] = leaf[...]
    return found


def merge_lora(params: PyTree, lora: PyTree, scale: float) -> PyTree:
    """The parameters of the policy with its adapters.

    Args:
        params: state of a ``Policy``; not changed.
        lora: of :func:`init_lora`.
        scale: ``alpha / rank``.

    Returns:
        the same pytree as ``params``, ``W + scale * A B`` for every adapted matrix.
    """
    factor = jnp.asarray(scale, jnp.float32)

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)

    flat = dict(nnx.to_flat_state(params))
    for name, pair in lora["layers"].items():
        path = ("layers", name)
        delta = jax.vmap(product)(pair["a"], pair["b"])
        flat[path] = flat[path].replace(flat[path][...] + factor * delta)
    return nnx.from_flat_state(flat)
