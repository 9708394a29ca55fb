"""Selectors made of selectors: mixtures, schedules, quotas, and when a prompt may come again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.draw import draw
from dpsjax.selectors.protocol import Evidence, Proposal, Selector, chain, stateless
from dpsjax.selectors.rates import wider
from dpsjax.selectors.trackers import Visits, track_visits
from dpsjax.types import Array, ArrayLike, Bool, Float, Int, Key

RowData = ArrayLike | Callable[[int], Array]


def row_data(name: str, values: RowData, num_prompts: int, dtype) -> Array:
    """A number known of every prompt: an array [N], or a function of N that makes it.

    Raises:
        TypeError: if it holds no numbers.
        ValueError: if there is not one for each prompt.
    """
    values = values(num_prompts) if callable(values) else values
    checks.require_finite(**{name: values})
    values = jnp.asarray(values, dtype)
    if values.shape != (num_prompts,):
        raise ValueError(f"{name} must have shape ({num_prompts},), got {values.shape}")
    return values


def best(
    key: Key, proposal: Proposal, count: Int[Array, ""] | int, offset: Int[Array, ""] | int = 0
) -> Bool[Array, "N"]:
    """Mark the ``count`` best eligible rows of the whole pool; at most the batch's size.

    Args:
        key: decides among equals.
        proposal: of this shard; it knows the size of the batch.
        count: how many; may be traced.
        offset: skip that many of the very best.

    Returns:
        bool[N].
    """
    size = proposal.ids.shape[0]
    if proposal.batch_size is None:  # nothing is being drawn: a look at the beliefs
        return jnp.zeros(size, bool)
    index = draw(key, proposal, proposal.batch_size).index
    place = jnp.arange(proposal.batch_size, dtype=jnp.int32)
    taken = (place >= offset) & (place < offset + count) & (index >= 0)
    local = jnp.where(taken, index - proposal.ids[0], -1)
    target = rows.scatter_index(local, size)
    return jnp.zeros(size, bool).at[target].set(True, mode="drop")


def first(proposal: Proposal, marked: Bool[Array, "N"]) -> Proposal:
    """Draw the marked rows before all others."""
    return proposal.replace(score=jnp.where(marked, jnp.inf, proposal.score))


def _share(fraction, batch_size):
    return jnp.round(jnp.asarray(fraction, jnp.float32) * (batch_size or 0)).astype(jnp.int32)


def _require_selectors(**selectors: Selector) -> None:
    checks.require_type(Selector, "a selector: a recipe or a chain", **selectors)


def mix(other: Selector, fraction=0.1) -> Selector:
    """Give a fraction of the batch to another selector: the exploration floor.

    ``round(fraction * B)`` prompts are those that ``other`` would draw among the eligible; the
    parts before keep the rest. A prompt that both want takes one place only. With ``uniform()``
    every eligible prompt is drawn with probability at least ``round(fraction * B) / N`` a step.

    Args:
        other: whose batch to mix in; it observes everything.
        fraction: in [0, 1]; may be traced.

    Returns:
        a part to put last.

    Raises:
        TypeError: if ``other`` is no selector.
        ValueError: for a fraction outside [0, 1].
    """
    _require_selectors(other=other)
    checks.require_finite(fraction=fraction)
    checks.require(
        (jnp.asarray(fraction) >= 0) & (jnp.asarray(fraction) <= 1),
        "fraction must lie in [0, 1], got {fraction}",
        fraction=fraction,
    )

    def propose(key: Key, proposal: Proposal, state):
        part_key, draw_key = jax.random.split(key)
        guest = proposal.replace(score=jnp.zeros_like(proposal.score))
        guest, state = other.propose(part_key, guest, state)
        marked = best(draw_key, guest, _share(fraction, proposal.batch_size))
        return first(proposal, marked), state

    return Selector(other.init, propose, other.observe)


def freeze(inner: Selector) -> Selector:
    """Use a selector whose state, say from an earlier run, no longer learns.

    Args:
        inner: its vetoes stay in force.

    Returns:
        the selector; nothing it does changes its state.

    Raises:
        TypeError: if ``inner`` is no selector.
    """
    _require_selectors(inner=inner)

    def propose(key: Key, proposal: Proposal, state):
        return inner.propose(key, proposal, state)[0], state

    def observe(evidence: Evidence, state):
        return inner.observe(evidence, state)[0], state

    return Selector(inner.init, propose, observe)


def schedule(before: Selector, after: Selector, step) -> Selector:
    """One selector for the first steps, another from then on; both learn all the time.

    Args:
        before: draws and vetoes until ``step`` observations were made.
        after: from then on.
        step: may be traced.

    Returns:
        the selector; beliefs published inside stay inside.

    Raises:
        TypeError: if one is no selector, or ``step`` no number.
        ValueError: if ``step`` is negative.
    """
    _require_selectors(before=before, after=after)
    checks.require_scalar(0.0, jnp.inf, step=step)

    def init(num_prompts: int):
        return jnp.zeros((), jnp.int32), before.init(num_prompts), after.init(num_prompts)

    def propose(key: Key, proposal: Proposal, state):
        count, *states = state
        early, first_state = before.propose(key, proposal, states[0])
        late, second_state = after.propose(key, proposal, states[1])
        is_late = count >= jnp.asarray(step, jnp.int32)
        dtype = wider(early.score, late.score)
        chosen = proposal.replace(
            score=jnp.where(is_late, late.score.astype(dtype), early.score.astype(dtype)),
            eligible=jnp.where(is_late, late.eligible, early.eligible),
            weight=jnp.where(is_late, late.weight, early.weight),
        )
        return chosen, (count, first_state, second_state)

    def observe(evidence: Evidence, state):
        count, *states = state
        early, first_state = before.observe(evidence, states[0])
        late, second_state = after.observe(evidence, states[1])
        is_late = count >= jnp.asarray(step, jnp.int32)
        accept = jnp.where(is_late, late.accept, early.accept)
        return evidence.replace(accept=accept), (count + 1, first_state, second_state)

    return Selector(init, propose, observe)


def quotas(shares: Float[Array, "S"], total: int) -> Int[Array, "S"]:
    """Whole numbers that add up to ``total``, as near to the shares as can be.

    Largest remainders first; equal ones by position.

    >>> import jax.numpy as jnp
    >>> quotas(jnp.array([0.5, 0.25, 0.25], jnp.float32), 10).tolist()
    [5, 3, 2]
    """
    exact = shares / shares.sum() * total
    whole = jnp.floor(exact)
    left = total - whole.sum().astype(jnp.int32)
    order = jnp.argsort(-(exact - whole), stable=True)
    rank = (
        jnp.zeros(shares.shape, jnp.int32)
        .at[order]
        .set(jnp.arange(shares.shape[0], dtype=jnp.int32))
    )
    return whole.astype(jnp.int32) + (rank < left).astype(jnp.int32)


def stratify(source: RowData, shares) -> Selector:
    """Give each source of prompts its share of the batch, and its best prompts the places.

    Places that a source cannot fill go to the best prompts of the others.

    Args:
        source: int[N], 0..S-1, or a function of N that makes it.
        shares: [S] non-negative weights; may be traced.

    Returns:
        a part to put after the scores.

    Raises:
        TypeError: if ``shares`` holds no numbers.
        ValueError: if one is negative, or none is positive.
    """
    checks.require_range(0.0, jnp.inf, shares=shares)
    weights = jnp.asarray(shares)
    if weights.ndim != 1 or (checks.is_concrete(weights) and not weights.sum() > 0):
        raise ValueError(f"shares={shares!r} must be [S] weights, and one of them positive")

    def init(num_prompts: int):
        return row_data("source", source, num_prompts, jnp.int32)

    def propose(key: Key, proposal: Proposal, sources):
        wanted = quotas(jnp.asarray(shares, jnp.float32), proposal.batch_size or 0)
        marked = jnp.zeros(sources.shape, bool)
        for number in range(wanted.shape[0]):
            own = proposal.replace(eligible=proposal.eligible & (sources == number))
            marked |= best(jax.random.fold_in(key, number), own, wanted[number])
        return first(proposal, marked), sources

    return Selector(init, propose, lambda evidence, sources: (evidence, sources))


def unless_short(proposal: Proposal, allowed: Bool[Array, "N"], strict: bool) -> Proposal:
    """Bar rows; or, if not strict, draw them only when no others are left."""
    if strict:
        return proposal.replace(eligible=proposal.eligible & allowed)
    last = jnp.asarray(jnp.finfo(proposal.score.dtype).min, proposal.score.dtype)
    return proposal.replace(score=jnp.where(allowed, proposal.score, last))


def cool_down(steps, strict: bool = True) -> Selector:
    """Never draw a prompt again within ``steps`` steps of its last rollouts.

    Args:
        steps: n; a prompt seen in step t may come again in step t + n + 1; may be traced.
        strict: if the pool is too small, whether to pad the batch, or else to fill it with
            prompts that are still cooling, at random.

    Returns:
        a part to put last.

    Raises:
        TypeError: if ``steps`` is no number.
        ValueError: if ``steps`` is negative.
    """
    checks.require_scalar(0.0, jnp.inf, steps=steps)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        visits = proposal.belief(Visits, "cool_down", "track_visits")
        rested = (visits.times == 0) | (visits.age >= jnp.asarray(steps, jnp.int32))
        return unless_short(proposal, rested, strict)

    return chain(track_visits(), stateless(propose))


def revisit(after, fraction=0.1) -> Selector:
    """Draw prompts believed solved again, once they were not seen for ``after`` steps.

    Believed solved: the last group all passed. Such prompts come first, the longest unseen ahead,
    up to ``fraction`` of the batch, so that forgetting is noticed.

    Args:
        after: steps unseen; may be traced.
        fraction: the largest share of the batch they take; may be traced.

    Returns:
        a part to put last.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if ``after`` is negative, or ``fraction`` not in [0, 1].
    """
    checks.require_scalar(0.0, jnp.inf, after=after)
    checks.require_scalar(0.0, 1.0, fraction=fraction)

    def propose(key, proposal: Proposal) -> Proposal:
        visits = proposal.belief(Visits, "revisit", "track_visits")
        due = visits.solved & (visits.age >= jnp.asarray(after, jnp.int32))
        waiting = proposal.replace(
            eligible=proposal.eligible & due, score=visits.age.astype(proposal.score.dtype)
        )
        marked = best(key, waiting, _share(fraction, proposal.batch_size))
        return first(proposal, marked)

    return chain(track_visits(), stateless(propose))
