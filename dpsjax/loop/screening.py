"""Steps in two rounds: a few rollouts decide which prompts get the rest (SPEED-RL, 2506.09016).

Prompts whose first rollouts are neither all right nor all wrong wait in a buffer of fixed size;
when B of them wait they get the rest of their rollouts, and the policy learns from both together.
Those left over are first in the next step, and with their first rollouts from the policy before:
the buffer is part of the state, and of its checkpoints.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dpsjax.grpo.advantages import AdvantageFunction, group_normalized
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.grpo.update import UpdateFunction, UpdateMetrics
from dpsjax.loop.compilation import compiler_options
from dpsjax.loop.refill import leaf, padded, waiting_leaves
from dpsjax.loop.rounds import (
    Draw,
    Groups,
    RoundReport,
    learn_from_round,
    loss_batch,
    report_of,
    what_was_seen,
)
from dpsjax.loop.state import TrainState
from dpsjax.loop.watched import predict
from dpsjax.policy import Rollouts
from dpsjax.selectors import Buffer, Selector, init_buffer, max_variance_subset, push, take
from dpsjax.types import Array, PyTree


class Held(NamedTuple):
    """Prompts that passed the screening, with their first rollouts; g of each.

    Attributes:
        index: int32[C].
        weight: Loss weight of the draw. float32[C].
        prompt: int32[C, P].
        prompt_mask: bool[C, P].
        tokens: int32[C, g, T].
        mask: bool[C, g, T].
        log_probs: float32[C, g, T].
        rewards: float32[C, g].
        correct: bool[C, g].
        valid: bool[C, g].
    """

    index: Array
    weight: Array
    prompt: Array
    prompt_mask: Array
    tokens: Array
    mask: Array
    log_probs: Array
    rewards: Array
    correct: Array
    valid: Array


class Screening(NamedTuple):
    """The stages of a step that screens.

    Attributes:
        collect: After each round of first rollouts: ``(state, draw, groups) -> (state, report)``.
        release: Who goes on: ``state -> (state, Draw, Held)``.
        generate: The rest of their rollouts; as :func:`dpsjax.loop.stages.make_generate`'s.
        update: ``(state, draw, held, groups, reference_params) -> (state, report, UpdateMetrics,
            RolloutBatch)``.
        batch_size: B, prompts that go on.
        max_rounds: After so many rounds the step goes on with those there are.
    """

    collect: Callable
    release: Callable
    generate: Callable
    update: Callable
    batch_size: int
    max_rounds: int


def empty_hold(batch_size: int, screen: int, prompt_tokens: int, response_tokens: int) -> Buffer:
    """Room for the prompts that wait.

    Args:
        batch_size: B.
        screen: g, first rollouts.
        prompt_tokens: P.
        response_tokens: T.

    Returns:
        room for 2 B prompts; a step stops screening when B of them wait, so it cannot overflow.
    """
    held = Held(
        **waiting_leaves(screen, prompt_tokens, response_tokens),
        rewards=leaf(jnp.float32, screen),
        correct=leaf(bool, screen),
        valid=leaf(bool, screen),
    )
    return init_buffer(held, 2 * batch_size)


def make_screening(
    selector: Selector,
    policy_update: UpdateFunction,
    generate: Callable,
    batch_size: int,
    rows: int,
    max_rounds: int,
    mesh: Mesh,
    state_shardings: TrainState,
    *,
    advantages: AdvantageFunction = group_normalized,
    keep: int | None = None,
) -> Screening:
    """The stages of a run whose steps screen.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`; it vetoes who did not pass.
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        generate: the rest of the rollouts.
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        max_rounds: of :func:`dpsjax.loop.refill.rounds_of`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`dpsjax.loop.rounds.learn_from_round`.

    Returns:
        the stages; nothing is compiled yet.
    """
    states = jax.eval_shape(lambda: predict(selector, selector.init(1))).shape[0]
    return Screening(
        collect=make_collect(selector, mesh, state_shardings),
        release=make_release(batch_size, rows, states, mesh, state_shardings),
        generate=generate,
        update=make_update(policy_update, mesh, state_shardings, advantages=advantages, keep=keep),
        batch_size=batch_size,
        max_rounds=max_rounds,
    )


def make_collect(selector: Selector, mesh: Mesh, state_shardings: TrainState) -> Callable:
    """Build the stage after each round: the belief learns, prompts that passed wait.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.

    Returns:
        jitted ``(state, draw, groups) -> (state, RoundReport)``; it donates the state.
    """

    def run(state: TrainState, draw: Draw, groups: Groups) -> tuple[TrainState, RoundReport]:
        state, batch, report = learn_from_round(selector, state, draw, groups)
        held = Held(
            index=draw.index,
            weight=batch.weight,
            prompt=draw.prompt,
            prompt_mask=draw.prompt_mask,
            tokens=groups.rollouts.tokens,
            mask=groups.rollouts.mask,
            log_probs=groups.rollouts.log_probs,
            rewards=groups.rewards,
            correct=groups.correct,
            valid=groups.valid,
        )
        pending = push(state.pending, held, report.accept)
        return state._replace(pending=pending), report._replace(waiting=pending.size)

    whole: Any = replicated(mesh)
    options = compiler_options(mesh)
    places = (state_shardings, whole)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def make_release(
    batch_size: int, rows: int, num_states: int, mesh: Mesh, state_shardings: TrainState
) -> Callable:
    """Build the stage between the rounds: the prompts that waited longest go on.

    Args:
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        num_states: K, of the record.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.

    Returns:
        jitted ``state -> (state, Draw, Held)``, R rows; it donates the state.
    """

    def run(state: TrainState) -> tuple[TrainState, Draw, Held]:
        held, valid, pending = take(state.pending, batch_size)
        held = padded(held, valid, rows)
        draw = Draw(
            index=held.index,
            weight=held.weight,
            prompt=held.prompt,
            prompt_mask=held.prompt_mask,
            predicted=jnp.zeros((num_states, rows), jnp.float32),
            occupancy=jnp.zeros(num_states, jnp.float32),
        )
        return state._replace(pending=pending), draw, held

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    places = (state_shardings, Draw(split, split, split, split, whole, whole), split)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def make_update(
    policy_update: UpdateFunction,
    mesh: Mesh,
    state_shardings: TrainState,
    *,
    advantages: AdvantageFunction = group_normalized,
    keep: int | None = None,
) -> Callable:
    """Build the stage that ends a step: the policy learns from first and later rollouts together.

    The belief does not learn again: it has seen these prompts in this step, or the one before.

    Args:
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`dpsjax.loop.rounds.learn_from_round`.

    Returns:
        jitted; see :class:`Screening`. It donates the state. The report is of the later rollouts;
        its solve states are -1, because no belief was judged by them.
    """

    def run(
        state: TrainState, draw: Draw, held: Held, groups: Groups, reference: PyTree
    ) -> tuple[TrainState, RoundReport, UpdateMetrics, RolloutBatch]:
        together = joined(held, groups)
        real = draw.index >= 0
        kept = together.valid & real[:, None]
        if keep is not None:
            kept &= max_variance_subset(together.rewards, keep)
        found = advantages(together.rewards, kept)
        ones = jnp.ones(real.shape, jnp.float32)
        batch = loss_batch(draw, together, kept, real, found, ones)
        params, opt_state, metrics = policy_update(state.params, state.opt_state, batch, reference)
        seen = what_was_seen(draw, groups)
        new = state._replace(
            params=params,
            opt_state=opt_state,
            step=state.step + 1,
            rollouts=state.rollouts + seen.asked.sum(dtype=jnp.int32),
        )
        report = report_of(seen, draw, new)
        nothing = jnp.full_like(report.observed, -1)
        return new, report._replace(accept=real, observed=nothing), metrics, batch

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    places = (state_shardings, whole, whole, split)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def joined(held: Held, groups: Groups) -> Groups:
    """First and later rollouts of the same prompts as one group each."""

    def both(first: Array, later: Array) -> Array:
        return jnp.concatenate([first, later], axis=1)

    later = groups.rollouts
    rollouts = Rollouts(
        tokens=both(held.tokens, later.tokens),
        mask=both(held.mask, later.mask),
        log_probs=both(held.log_probs, later.log_probs),
        steps=later.steps,
    )
    return Groups(
        rollouts,
        rewards=both(held.rewards, groups.rewards),
        correct=both(held.correct, groups.correct),
        valid=both(held.valid, groups.valid),
    )
