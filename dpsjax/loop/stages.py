"""The device side of a step: select, generate, update. Each is one jitted program.

All randomness is a function of the run's key and the number of the step, so the state before a
step decides the step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from dpsjax import selectors
from dpsjax.grpo.advantages import (
    AdvantageFunction,
    BeliefAdvantages,
    group_normalized,
)
from dpsjax.grpo.batch import RolloutBatch, numerator_weight
from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.grpo.update import LogProbFunction, UpdateFunction, UpdateMetrics
from dpsjax.loop.allocation import Allocation, believed, row_weights, slots_of
from dpsjax.loop.compilation import compiler_options
from dpsjax.loop.prompts import Prompts, gather
from dpsjax.loop.rounds import Draw, Groups, RoundReport, Slots, learn_from_round
from dpsjax.loop.state import TrainState
from dpsjax.loop.watched import predict, propose_all
from dpsjax.policy import Rollouts, Sampling, generate, token_log_probs
from dpsjax.selectors import Selector
from dpsjax.types import Array, Key, PyTree

# What a key of a step is used for.
SELECT, GENERATE, CONTINUE = 0, 1, 2


def step_key(key: Key, step: Array, use: int) -> Key:
    """The key of one use in one step."""
    return jax.random.fold_in(jax.random.fold_in(key, step), use)


def round_key(key: Key, number: int) -> Key:
    """The key that stands for the run's in the later rounds of a step, counted from 0."""
    return jax.random.fold_in(key, number) if number else key


def make_select(
    selector: Selector,
    batch_size: int,
    rows: int,
    mesh: Mesh,
    selector_shardings: PyTree,
    allocation: Allocation | None = None,
    group: int = 1,
) -> Callable:
    """Build the selection stage.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        mesh: the devices.
        selector_shardings: of the selector's state.
        allocation: How the R G rows of the draw are split among the prompts, if not evenly.
        group: G; needed for that alone.

    Returns:
        jitted ``(selector_state, key, step, prompts) -> (Draw, selector_state)``; it donates the
        selector's state.
    """

    def run(state: PyTree, key: Key, step: Array, pool: Prompts):
        batch, after = selectors.select(selector, step_key(key, step, SELECT), state, batch_size)
        prob = predict(selector, state)
        active = state.active.astype(prob.dtype)[None]
        if allocation is None:
            short = rows - batch_size
            index = jnp.pad(batch.index, (0, short), constant_values=-1)
            weight, of_prompt, slots = jnp.pad(batch.weight, (0, short)), index, None
        else:
            rate = believed(propose_all(selector, state), batch.index)
            number = allocation.split(rate, batch_size * group)
            slots, index = slots_of(batch.index, number, allocation.highest, rows * group)
            weight = row_weights(batch.weight, slots, group, allocation.per_prompt)
            of_prompt = batch.index
        prompt, mask = gather(pool, index)
        draw = Draw(
            index=index,
            weight=weight,
            prompt=prompt,
            prompt_mask=mask,
            predicted=prob[:, jnp.maximum(of_prompt, 0)].astype(jnp.float32),
            occupancy=((prob * active).sum(axis=1) / active.sum()).astype(jnp.float32),
            slots=slots,
        )
        return draw, after

    split: Any = batch_sharding(mesh)  # Any: a sharding stands where the array will be
    whole: Any = replicated(mesh)
    slots = None if allocation is None else Slots(whole, whole, whole, whole)
    draw = Draw(split, split, split, split, whole, whole, slots)
    places = (draw, selector_shardings)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def make_generate(graph: nnx.GraphDef, sampling: Sampling, group: int, mesh: Mesh) -> Callable:
    """Build the generation stage.

    Args:
        graph: the policy's, of ``nnx.split``.
        sampling: how to draw.
        group: G.
        mesh: the devices.

    Returns:
        jitted ``(params, key, prompt int32[R, P], mask bool[R, P]) -> Rollouts``.
    """

    def run(params: PyTree, key: Key, prompt: Array, mask: Array) -> Rollouts:
        return generate(nnx.merge(graph, params), key, prompt, mask, sampling, group)

    split: Any = batch_sharding(mesh)
    whole: Any = replicated(mesh)
    places = Rollouts(split, split, split, whole)
    return jax.jit(run, out_shardings=places, compiler_options=compiler_options(mesh))


def log_prob_function(graph: nnx.GraphDef, temperature: float) -> LogProbFunction:
    """The policy as :func:`dpsjax.grpo.update.make_update` wants it.

    Args:
        graph: the policy's, of ``nnx.split``.
        temperature: of the sampling.

    Returns:
        the function.
    """

    def run(params: PyTree, prompt: Array, prompt_mask: Array, tokens: Array, mask: Array):
        model = nnx.merge(graph, params)
        return token_log_probs(model, prompt, prompt_mask, tokens, mask, temperature=temperature)

    return run


def make_update(
    selector: Selector,
    policy_update: UpdateFunction,
    mesh: Mesh,
    state_shardings: TrainState,
    *,
    advantages: AdvantageFunction | BeliefAdvantages = group_normalized,
    keep: int | None = None,
) -> Callable:
    """Build the update stage: the belief learns, then the policy, then the counters.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`learn_from_round`.

    Returns:
        jitted ``(state, draw, groups, reference_params) -> (state, RoundReport, UpdateMetrics,
        RolloutBatch)``; it donates the state. ``reference_params`` is None without a KL penalty.
        The batch is what the policy learned from.
    """

    def run(
        state: TrainState, draw: Draw, groups: Groups, reference: PyTree
    ) -> tuple[TrainState, RoundReport, UpdateMetrics, RolloutBatch]:
        state, batch, report = learn_from_round(
            selector, state, draw, groups, advantages=advantages, keep=keep
        )
        params, opt_state, metrics = policy_update(state.params, state.opt_state, batch, reference)
        if draw.slots is not None:  # it counted rows
            heads = jnp.where(draw.slots.place == 0, numerator_weight(batch), 0) != 0
            metrics = metrics._replace(groups=heads.sum(dtype=metrics.groups.dtype))
        new = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
        return new, report, metrics, batch

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    places = (state_shardings, whole, whole, split)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)
