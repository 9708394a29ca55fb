"""Steps of several rounds: rollouts go on until enough groups are accepted (DAPO, 2503.14476).

Accepted groups wait in a buffer of fixed size from which nothing is thrown away: what one update
does not use is first in the next. The buffer is part of the state, and of its checkpoints.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dpsjax.grpo.advantages import AdvantageFunction, BeliefAdvantages, group_normalized
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.grpo.update import UpdateFunction, UpdateMetrics
from dpsjax.loop.compilation import compiler_options
from dpsjax.loop.rounds import Draw, Groups, RoundReport, learn_from_round
from dpsjax.loop.state import TrainState
from dpsjax.selectors import Buffer, Selector, init_buffer, push, take
from dpsjax.types import PyTree

Waiting = TypeVar("Waiting", bound=Any)  # a NamedTuple of arrays


class Refill(NamedTuple):
    """The stages of a step of several rounds.

    Attributes:
        collect: See :func:`make_collect`.
        update: See :func:`make_waiting_update`.
        batch_size: B, groups of an update.
        max_rounds: After so many rounds the update takes what there is.
    """

    collect: Callable
    update: Callable
    batch_size: int
    max_rounds: int


def rounds_of(limit: int | None, batch_size: int, num_prompts: int) -> int:
    """Rounds that a step may take.

    Args:
        limit: of the settings; None to go on until the batch is full.
        batch_size: B.
        num_prompts: N.

    Returns:
        the limit. Without one, so many that the whole pool could be asked once: a policy that
        answers none of it in two ways would be asked for ever.

    >>> rounds_of(None, 64, 1000), rounds_of(4, 64, 1000)
    (16, 4)
    """
    return -(-num_prompts // batch_size) if limit is None else limit


def waiting_leaves(group: int, prompt_tokens: int, response_tokens: int) -> dict[str, Any]:
    """Shapes of what waits of any group: its prompt and ``group`` responses to it."""
    return {
        "index": leaf(jnp.int32),
        "weight": leaf(jnp.float32),
        "prompt": leaf(jnp.int32, prompt_tokens),
        "prompt_mask": leaf(bool, prompt_tokens),
        "tokens": leaf(jnp.int32, group, response_tokens),
        "mask": leaf(bool, group, response_tokens),
        "log_probs": leaf(jnp.float32, group, response_tokens),
    }


def leaf(dtype: Any, *shape: int) -> Any:
    """Stands for an array of one group."""
    return jax.ShapeDtypeStruct(shape, dtype)


def empty_buffer(batch_size: int, group: int, prompt_tokens: int, response_tokens: int) -> Buffer:
    """Room for the groups that wait.

    Args:
        batch_size: B.
        group: G.
        prompt_tokens: P.
        response_tokens: T.

    Returns:
        room for 2 B groups; a step stops collecting when B of them wait, so it cannot overflow.
    """
    waiting = RolloutBatch(
        **waiting_leaves(group, prompt_tokens, response_tokens),
        advantages=leaf(jnp.float32, group),
        informative=leaf(bool),
        accept=leaf(bool),
    )
    return init_buffer(waiting, 2 * batch_size)


def buffer_shardings(buffer: Buffer, mesh: Mesh) -> Any:
    """Groups divided over the devices that share a batch where that goes evenly, else whole.

    Args:
        buffer: of :func:`empty_buffer`, or its shapes.
        mesh: the devices.

    Returns:
        a sharding for every leaf.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    even = buffer.groups.index.shape[0] % ways == 0
    whole: Any = replicated(mesh)
    groups: Any = batch_sharding(mesh) if even else whole
    return Buffer(jax.tree.map(lambda _: groups, buffer.groups), whole, whole)


def make_refill(
    selector: Selector,
    policy_update: UpdateFunction,
    batch_size: int,
    rows: int,
    max_rounds: int,
    mesh: Mesh,
    state_shardings: TrainState,
    *,
    advantages: AdvantageFunction | BeliefAdvantages = group_normalized,
    keep: int | None = None,
) -> Refill | None:
    """The stages of a run whose steps have several rounds; None where the state has no buffer.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        max_rounds: of :func:`rounds_of`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`dpsjax.loop.rounds.learn_from_round`.

    Returns:
        the stages; nothing is compiled yet.
    """
    if not state_shardings.pending:
        return None
    return Refill(
        make_collect(selector, mesh, state_shardings, advantages=advantages, keep=keep),
        make_waiting_update(policy_update, batch_size, rows, mesh, state_shardings),
        batch_size,
        max_rounds,
    )


def make_collect(
    selector: Selector,
    mesh: Mesh,
    state_shardings: TrainState,
    *,
    advantages: AdvantageFunction | BeliefAdvantages = group_normalized,
    keep: int | None = None,
) -> Callable:
    """Build the stage after each round: the belief learns from all groups, accepted ones wait.

    Args:
        selector: of :func:`dpsjax.loop.watched.watched`.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: see :func:`dpsjax.loop.rounds.learn_from_round`.

    Returns:
        jitted ``(state, draw, groups) -> (state, RoundReport)``; it donates the state.
    """

    def run(state: TrainState, draw: Draw, groups: Groups) -> tuple[TrainState, RoundReport]:
        state, batch, report = learn_from_round(
            selector, state, draw, groups, advantages=advantages, keep=keep
        )
        pending = push(state.pending, batch, batch.accept)
        return state._replace(pending=pending), report._replace(waiting=pending.size)

    whole: Any = replicated(mesh)
    places = (state_shardings, whole)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def make_waiting_update(
    policy_update: UpdateFunction,
    batch_size: int,
    rows: int,
    mesh: Mesh,
    state_shardings: TrainState,
) -> Callable:
    """Build the stage that ends a step: the policy learns from the groups that waited longest.

    Args:
        policy_update: of :func:`dpsjax.grpo.update.make_update`.
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        mesh: the devices.
        state_shardings: a sharding for every leaf of the state.

    Returns:
        jitted ``(state, reference_params) -> (state, UpdateMetrics, RolloutBatch)``; it donates the
        state.
    """

    def run(state: TrainState, reference: PyTree) -> tuple[TrainState, UpdateMetrics, RolloutBatch]:
        batch, valid, pending = take(state.pending, batch_size)
        batch = padded(batch, valid, rows)
        params, opt_state, metrics = policy_update(state.params, state.opt_state, batch, reference)
        new = state._replace(
            params=params, opt_state=opt_state, step=state.step + 1, pending=pending
        )
        return new, metrics, batch

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    places = (state_shardings, whole, split)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def padded(groups: Waiting, valid: jax.Array, rows: int) -> Waiting:
    """The groups taken from a buffer, with rows of padding behind them.

    Args:
        groups: B of them, with an ``index`` and a ``prompt_mask``.
        valid: which are real. bool[B].
        rows: R >= B.

    Returns:
        R rows; id -1 and a prompt of one token where there is no group.
    """
    short = rows - valid.shape[0]
    groups, valid = jax.tree.map(
        lambda x: jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1)), (groups, valid)
    )
    return groups._replace(
        index=jnp.where(valid, groups.index, -1),
        # A sound input, also where there is no prompt.
        prompt_mask=groups.prompt_mask.at[:, -1].set(True),
    )
