"""Training adapters in place of the weights: the weights are an input that never changes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dpsjax.grpo.config import GRPOConfig
from dpsjax.grpo.update import LogProbFunction, UpdateFunction, Variant, make_update
from dpsjax.policy import PolicyConfig
from dpsjax.policy.lora import init_lora, merge_lora
from dpsjax.policy.sharding import shardings
from dpsjax.run.config import ModelConfig
from dpsjax.types import Key, PyTree


def make_adapters(config: ModelConfig, policy: PolicyConfig, mesh: Mesh, key: Key) -> PyTree:
    """Adapters of the settings, placed on the mesh; the policy is the same with and without them.

    Args:
        config: with ``lora_rank`` above 0.
        policy: architecture.
        mesh: the devices.
        key: of their start.

    Returns:
        see :func:`dpsjax.policy.lora.init_lora`.

    Raises:
        ImportError: the extra ``lora`` is not installed.
    """

    def build(key: Key) -> PyTree:
        return init_lora(key, policy, config.lora_rank, config.lora_alpha)

    return jax.jit(build, out_shardings=shardings(jax.eval_shape(build, key), mesh))(key)


def make_merge(config: ModelConfig, base: PyTree, mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """Build the function from adapters to the parameters of the policy.

    Args:
        config: with ``lora_rank`` above 0.
        base: parameters without adapters.
        mesh: the devices.

    Returns:
        jitted ``adapters -> params``; ``base`` is an argument of the program, not a constant in it.
    """
    places = shardings(base, mesh)
    scale = config.lora_alpha / config.lora_rank
    merge = jax.jit(lambda base, lora: merge_lora(base, lora, scale), out_shardings=places)
    return lambda lora: merge(base, lora)


def make_adapter_update(
    config: GRPOConfig,
    log_probs: LogProbFunction,
    optimizer: optax.GradientTransformation,
    variant: Variant,
    model: ModelConfig,
) -> UpdateFunction:
    """Build an update of adapters.

    Args:
        config: of GRPO.
        log_probs: of the policy with whole parameters.
        optimizer: holds moments of the adapters alone.
        variant: of the loss.
        model: with ``lora_rank`` above 0.

    Returns:
        as :func:`dpsjax.grpo.update.make_update`'s, with adapters as its parameters and the base as
        its reference: without adapters the policy is the reference of a KL penalty.
    """
    scale = model.lora_alpha / model.lora_rank

    def update(lora: PyTree, opt_state: PyTree, batch, base: PyTree):
        def adapted(lora: PyTree, *inputs):
            return log_probs(merge_lora(base, lora, scale), *inputs)

        step = make_update(config, adapted, optimizer, variant)
        return step(lora, opt_state, batch, jax.tree.map(jnp.zeros_like, lora))

    return update
