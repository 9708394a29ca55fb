"""The calls of a training loop: `select` before the rollouts, `observe` after them, `inspect`.

Called with arrays, as in a plain Python loop, each is compiled once for a selector and the shapes
it meets, and what it does not change in the state is passed through, not copied. Called inside
``jit``, ``vmap``, ``scan`` or ``shard_map`` it is traced with what stands around it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.belief.filter import View
from dpsjax.selectors import pool
from dpsjax.selectors.base import (
    GROUP,
    Batch,
    ChainState,
    Evidence,
    Feedback,
    Proposal,
    Selector,
    first_row,
    newest,
    over_shards,
)
from dpsjax.selectors.compiled import compiled
from dpsjax.selectors.draw import draw
from dpsjax.types import Array, ArrayLike, Float, Key, PyTree, Rows


class Outlook(NamedTuple):
    """What is believed of every prompt, in the step to come."""

    rate: Float[Array, "N"]  # expected pass rate of a rollout
    mixed: Float[Array, "N"]  # chance that a group of G neither all passes nor all fails
    outcome: Float[Array, "3 N"]  # chances that none, some or all of a group pass


def select(
    selector: Selector,
    key: Key,
    state: PyTree,
    batch_size: int,
    *,
    axis_name: str | None = None,
) -> tuple[Batch, ChainState]:
    """Choose the prompts to roll out next.

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
        TypeError: ``state`` is not the state of a chain, or another argument something else.
        ValueError: ``batch_size`` is not positive, or ``state`` is that of another selector.
    """
    checks.require_key(key=key)
    checks.require_counts(batch_size=batch_size)
    state = pool.checked(selector, state)

    def call(state, key):
        return _select(selector, key, state, batch_size, axis_name)

    if axis_name is None and checks.is_concrete(key, state):
        done = compiled((selector, "select", batch_size), call, state, (key,), donate=False)
        if done is not None:
            return done
    return call(state, key)


def observe(
    selector: Selector,
    state: PyTree,
    index: Rows,
    passes: Rows,
    trials: Rows,
    *,
    age: Rows | None = None,
    axis_name: str | None = None,
    advance: bool = True,
    donate: bool = False,
    **extras: ArrayLike,
) -> tuple[Feedback, ChainState]:
    """Learn from rollouts, as often as rewards arrive.

    Beliefs learn from every row; only the loss obeys ``accept``. Rows of the same prompt are
    merged by adding their counts, but each row is accepted or not by its own.

    Args:
        selector: the selector that made ``state``.
        state: the current state.
        index: int[B] global prompt ids, -1 is padding.
        passes: int[B] rollouts that passed, 0..trials.
        trials: int[B] rollouts made; 0 means that nothing was seen.
        age: int[B] updates that the policy has had since it made these rollouts; 0 if not given.
        axis_name: as in :func:`select`; the rows are the same on every shard.
        advance: whether a training step has passed too. A loop in which rewards arrive several
            times a step says False but for the last time, which may have no rows, or calls
            :func:`advance` once a step.
        donate: write over the buffers of ``state``, which must not be used again. Inside ``jit``
            that is up to ``donate_argnums``.
        **extras: whatever else is known of each row, arrays [B, ...] by name, for the parts that
            look: ``rewards`` float[B, G] and ``entropies`` float[B, G] (mean token entropy of each
            rollout, NaN where there is none). Of rows with the same id the first one's are used.

    Rows may be sequences, or arrays of any library that NumPy can read. A function of your own
    under ``jax.jit`` takes arrays of JAX and NumPy alone: give it ``np.asarray(tensor)``.

    Returns:
        ``(feedback, state)``; padding is not accepted.

    Raises:
        TypeError: an argument does not hold integers.
        ValueError: an id is outside [-1, N) or names an empty row, counts are not
            0 <= passes <= trials, or lengths differ. Under ``jit`` these are ``checkify`` errors;
            without ``checkify`` such rows are dropped.
    """
    state = pool.checked(selector, state)
    total = state.active.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    index, passes, trials = _rows_of(index, passes, trials, total)
    if axis_name is None:
        pool.require_active(state, index)
    age = np.zeros(index.shape, np.int32) if age is None else age
    age = rows.counts("age", age, length=index.shape[0], of="index")
    known = {name: rows.known(name, value, index.shape[0]) for name, value in extras.items()}

    def call(state, *arrays):
        rows = jax.tree.map(jnp.asarray, arrays)
        return _observe(selector, axis_name, advance, state, *rows)

    arrays = (index, passes, trials, age, known)
    if axis_name is None and checks.is_concrete(state, arrays):
        done = compiled((selector, "observe", advance), call, state, arrays, donate=donate)
        if done is not None:
            return done
    return call(state, *arrays)


def advance(selector: Selector, state: PyTree) -> ChainState:
    """Let one training step pass: beliefs forget and drift, clocks go on.

    Args:
        selector: the selector that made ``state``.
        state: the current state.

    Returns:
        the state.
    """
    state = pool.checked(selector, state)
    return selector.advance(state)


def inspect(selector: Selector, state: PyTree, group: int = GROUP) -> Outlook:
    """What is believed of every prompt; nothing is drawn and no state is made.

    Args:
        selector: the selector that made ``state``; its newest belief answers.
        state: the current state.
        group: G rollouts.

    Returns:
        the outlook, for every row of the pool (of this shard of it).

    Raises:
        ValueError: the selector keeps no belief about pass rates (:func:`has_belief`).
    """
    checks.require_counts(group=group)
    state = pool.checked(selector, state)

    def call(state):
        view = newest(selector.publish(state), View, "inspect", "a tracker such as track_hmm")
        outcome = view.outcome(group)
        return Outlook(view.rate(), outcome[1], outcome), ()

    if checks.is_concrete(state):
        done = compiled((selector, "inspect", group), call, state, (), donate=False)
        if done is not None:
            return done[0]
    return call(state)[0]


def has_belief(selector: Selector, state: ChainState) -> bool:
    """Whether :func:`inspect` has an answer: whether some part keeps a belief about pass rates."""
    found = []

    def look(state):
        found.extend(belief for belief in selector.publish(state) if isinstance(belief, View))
        return ()

    jax.eval_shape(look, state)
    return bool(found)


def _select(selector, key, state, batch_size, axis_name):
    num_rows = state.active.shape[0]
    draw_key, part_key = jax.random.split(key)
    proposal = Proposal(
        score=jnp.zeros(num_rows, jnp.float32),
        eligible=jnp.ones(num_rows, bool),
        batch_size=batch_size,
        axis_name=axis_name,
    )
    proposal, after = selector.propose(part_key, proposal, state)
    batch = draw(draw_key, proposal)
    return selector.drawn(batch, proposal.publish(selector.publish(state)), after)


def _rows_of(index, passes, trials, total):
    """Sound rows as int32: what no row can be is an error, or where traced becomes padding."""
    index = rows.ids("index", index, total)
    size, hint = index.shape[0], "give how many rollouts passed, such as (rewards > 0.5).sum(1)"
    passes = rows.counts("passes", passes, length=size, of="index", hint=hint)
    trials = rows.counts("trials", trials, length=size, of="index", hint="give how many ran")
    sound = (passes >= 0) & (passes <= trials)
    checks.require(
        (index < 0) | sound,
        "passes must lie in [0, trials]; got passes {passes} and trials {trials}",
        passes=passes,
        trials=trials,
    )
    if checks.is_concrete(sound):
        return index, passes, trials
    return jnp.where(sound, index, -1), passes, trials


def _observe(selector, axis_name, advance, state, index, passes, trials, age, extras):
    num_rows = state.active.shape[0]
    local = index - first_row(num_rows, axis_name)
    here = (index >= 0) & (trials > 0) & (local >= 0) & (local < num_rows)
    here &= state.active[jnp.clip(local, 0, num_rows - 1)]
    real = over_shards(here.astype(jnp.int32), axis_name) > 0  # a row that holds a prompt
    merged = rows.merge_duplicates(jnp.where(real, index, -1), passes, trials)
    first, (all_passes, all_trials) = merged
    row = jnp.where(here, local, -1)
    evidence = Evidence(
        index=jnp.where(first, row, -1),
        passes=all_passes,
        trials=all_trials,
        row=row,
        row_passes=passes,
        row_trials=trials,
        valid=first,
        accept=real,
        weight=jnp.ones(index.shape, jnp.float32),
        age=age,
        extras=extras,
        axis_name=axis_name,
    )
    evidence, state = selector.observe(evidence, state)
    feedback = Feedback(
        accept=evidence.accept & real,
        weight=jnp.where(real, evidence.weight, 0).astype(jnp.float32),
    )
    return feedback, selector.advance(state) if advance else state
