"""The two calls a training loop makes: `select` before the rollouts, `observe` after them."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.draw import draw
from dpsjax.selectors.protocol import (
    Batch,
    ChainState,
    Evidence,
    LateWeight,
    Proposal,
    Selector,
    first_row,
)
from dpsjax.types import Array, ArrayLike, Bool, Float, Key


def _num_rows(selector, state) -> int:
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    if not isinstance(state, ChainState):
        raise TypeError(
            f"state must come from a recipe's or a chain's init, got {type(state).__name__}: "
            "wrap the part in dpsjax.chain(...)"
        )
    return state.active.shape[0]


def select(
    selector: Selector,
    key: Key,
    state: ChainState,
    batch_size: int,
    *,
    axis_name: str | None = None,
) -> tuple[Batch, ChainState]:
    """Choose the prompts to roll out next.

    Pure: works eagerly and under ``jit``, ``vmap`` (over keys, states and hyperparameters),
    ``scan`` and ``shard_map``.

    Args:
        selector: a recipe or a chain.
        key: a JAX random key, used up.
        state: from ``selector.init(num_prompts)``.
        batch_size: B, static.
        axis_name: under ``shard_map`` with the state sharded over its prompt axis: the mesh axis.
            Every shard gets the same batch, at the cost of one all-gather of B rows a shard.

    Returns:
        ``(batch, state)``; ``batch.index`` int32[B] holds distinct ids, -1 where fewer than B
        prompts are eligible.

    Raises:
        TypeError: if ``state`` is not the state of a chain, or another argument something else.
        ValueError: if ``batch_size`` is not positive.
    """
    num_rows = _num_rows(selector, state)
    checks.require_key(key=key)
    checks.require_counts(batch_size=batch_size)
    draw_key, part_key = jax.random.split(key)
    ids = first_row(num_rows, axis_name) + jnp.arange(num_rows, dtype=jnp.int32)
    proposal = Proposal(
        ids=ids,
        score=jnp.zeros(num_rows, jnp.float32),
        eligible=jnp.ones(num_rows, bool),
        weight=jnp.ones(num_rows, jnp.float32),
        axis_name=axis_name,
        batch_size=batch_size,
    )
    proposal, state = selector.propose(part_key, proposal, state)
    return draw(draw_key, proposal, batch_size), state


def observe(
    selector: Selector,
    state: ChainState,
    index: ArrayLike,
    passes: ArrayLike,
    trials: ArrayLike,
    *,
    rewards: Float[Array, "B G"] | None = None,
    entropies: Float[Array, "B G"] | None = None,
    axis_name: str | None = None,
) -> tuple[Bool[Array, "B"], ChainState]:
    """Learn from one step's rollouts. Call it once a training step, also with no rows at all.

    Trackers learn from every row; only the loss obeys ``accept``. Rows of the same prompt are
    merged by adding their counts.

    Args:
        selector: the selector that made ``state``.
        state: the current state; donate it under ``jit`` to update it in place.
        index: int32[B] global prompt ids, -1 is padding.
        passes: int32[B] rollouts that passed, 0..trials.
        trials: int32[B] rollouts made; 0 means that nothing was seen.
        rewards: float[B, G] reward of each rollout, for selectors that look at it. Of rows with
            the same id the first one's are used.
        entropies: float[B, G] mean token entropy of each rollout, NaN where there is none.
        axis_name: as in :func:`select`; ``index``, ``passes`` and ``trials`` are the same on every
            shard.

    Returns:
        ``(accept bool[B], state)``; padding is not accepted.

    Raises:
        TypeError: if an argument does not hold integers.
        ValueError: for an id outside [-1, N), counts that are not 0 <= passes <= trials, or
            unequal lengths. Under ``jit`` these are ``checkify`` errors; without ``checkify`` such
            rows are dropped.
    """
    num_rows = _num_rows(selector, state)
    index = checks.integer_vector("index", index)
    passes = checks.integer_vector("passes", passes, length=index.shape[0], of="index")
    trials = checks.integer_vector("trials", trials, length=index.shape[0], of="index")
    total = num_rows if axis_name is None else num_rows * jax.lax.axis_size(axis_name)
    checks.require(
        (index >= -1) & (index < total),
        f"index must lie in [0, {total}), or be -1 for padding; got {{index}}",
        index=index,
    )
    sound = (passes >= 0) & (passes <= trials)
    checks.require(
        (index < 0) | sound,
        "passes must lie in [0, trials]; got passes {passes} and trials {trials}",
        passes=passes,
        trials=trials,
    )
    real = (index >= 0) & (index < total) & sound & (trials > 0)
    first, (passes, trials) = rows.merge_duplicates(jnp.where(real, index, -1), passes, trials)
    local = index - first_row(num_rows, axis_name)
    here = first & (local >= 0) & (local < num_rows)
    evidence = Evidence(
        index=jnp.where(here, local, -1),
        passes=passes,
        trials=trials,
        valid=first,
        accept=real,
        rewards=rewards,
        entropies=entropies,
        axis_name=axis_name,
    )
    evidence, state = selector.observe(evidence, state)
    return evidence.accept & real, state


def late_weights(selector: Selector, state: ChainState, index: ArrayLike) -> Float[Array, "B"]:
    """Loss weights that depend on the rollouts of the same step (:func:`lppo` with ``late``).

    Call it after :func:`observe` and multiply the batch's weights by it.

    Args:
        selector: a recipe or a chain.
        state: after :func:`observe`.
        index: int32[B] prompt ids, -1 is padding.

    Returns:
        float32[B]; 1 for padding, and everywhere if the selector has no such weights.

    Raises:
        TypeError: if an argument is something else.
    """
    index = checks.integer_vector("index", index)
    num_rows = _num_rows(selector, state)
    proposal = Proposal(
        ids=jnp.arange(num_rows, dtype=jnp.int32),
        score=jnp.zeros(num_rows, jnp.float32),
        eligible=jnp.ones(num_rows, bool),
        weight=jnp.ones(num_rows, jnp.float32),
    )
    beliefs = selector.propose(jax.random.key(0), proposal, state)[0].beliefs
    total = jnp.ones(index.shape, jnp.float32)
    for belief in beliefs:
        if isinstance(belief, LateWeight):
            found = belief.weight[rows.gather_index(index)].astype(total.dtype)
            total = total * jnp.where(index < 0, 1, found)
    return total
