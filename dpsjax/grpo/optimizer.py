"""AdamW with a clipped global gradient norm, and the rule of what decays."""

import re

import jax
import optax

from dpsjax import checks
from dpsjax.grpo.config import GRPOConfig
from dpsjax.types import PyTree

# Matched against the whole path: a stack of layers makes a norm's scale a matrix, so the rank
# alone does not tell.
NO_DECAY = re.compile(r"norm|scale|bias", re.IGNORECASE)


def decays(params: PyTree) -> PyTree:
    """Which parameters weight decay acts on: matrices that are neither a norm nor a bias.

    Args:
        params: Pytree of arrays.

    Returns:
        The same pytree with a bool for each array.

    Raises:
        TypeError: A leaf is no array.

    >>> import jax.numpy as jnp
    >>> kernel, scale = jnp.ones((2, 2)), jnp.ones((2, 2))
    >>> decays({"dense": {"kernel": kernel, "bias": scale[0]}, "norms": {"scale": scale}})
    {'dense': {'bias': False, 'kernel': True}, 'norms': {'scale': False}}
    """
    for leaf in jax.tree.leaves(params):
        if not hasattr(leaf, "ndim"):
            raise TypeError(f"params holds {leaf!r}: it must be a pytree of arrays")
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.ndim >= 2 and NO_DECAY.search(jax.tree_util.keystr(path)) is None,
        params,
    )


def make_optimizer(
    config: GRPOConfig, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip, as the released DPS scripts use.

    Args:
        config: Gives the learning rate, weight decay and maximal norm.
        schedule: Learning rate by optimizer step; default the constant ``learning_rate``.

    Returns:
        The optax transformation.

    Raises:
        TypeError: ``config`` is something else, or ``schedule`` no function.
    """
    checks.require_type(GRPOConfig, "a GRPOConfig", config=config)
    if schedule is not None:
        checks.require_callable(schedule=schedule)
    chained = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            config.learning_rate if schedule is None else schedule,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )

    def update(updates, state, params=None):
        # Adam raises a float to its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return chained.update(updates, state, params)

    return optax.GradientTransformation(chained.init, update)
