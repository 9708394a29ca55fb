"""Training adapters in place of the weights: the weights are an input that never changes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dpsjax.grpo import GRPOConfig, LogProbFunction, UpdateFunction, make_update
from dpsjax.policy import PolicyConfig
from dpsjax.policy.lora import init_lora, merge_lora
from dpsjax.types import Key, PyTree


class Adapters(NamedTuple):
    """LoRA adapters.

    Attributes:
        rank: At least 1.
        alpha: An adapter counts alpha / rank times.
    """

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """What an adapter is multiplied by."""
        return self.alpha / self.rank

    def init(self, key: Key, policy: PolicyConfig) -> PyTree:
        """Adapters that change nothing yet; see :func:`dpsjax.policy.lora.init_lora`."""
        return init_lora(key, policy, self.rank, self.alpha)

    def shapes(self, policy: PolicyConfig) -> PyTree:
        """Their shapes."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), policy))


def make_merge(adapters: Adapters, places: PyTree) -> Callable[[PyTree, PyTree], PyTree]:
    """Build the program from adapters to the parameters of the policy.

    Args:
        adapters: what they are.
        places: shardings of the parameters.

    Returns:
        jitted ``(base, lora) -> params``.
    """
    return jax.jit(lambda base, lora: merge_lora(base, lora, adapters.scale), out_shardings=places)


def make_adapter_update(
    config: GRPOConfig,
    log_probs: LogProbFunction,
    optimizer: optax.GradientTransformation,
    adapters: Adapters,
) -> UpdateFunction:
    """Build an update of adapters.

    Args:
        config: of GRPO.
        log_probs: of the policy with whole parameters.
        optimizer: holds moments of the adapters alone.
        adapters: what they are.

    Returns:
        as :func:`dpsjax.grpo.update.make_update`'s, with adapters as its parameters and the base as
        its reference: without adapters the policy is the reference of a KL penalty.
    """

    def update(lora: PyTree, opt_state: PyTree, batch, base: PyTree):
        def adapted(lora: PyTree, *inputs):
            return log_probs(merge_lora(base, lora, adapters.scale), *inputs)

        step = make_update(config, adapted, optimizer)
        return step(lora, opt_state, batch, jax.tree.map(jnp.zeros_like, lora))

    return update
