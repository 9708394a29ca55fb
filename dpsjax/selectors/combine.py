"""Selectors made of selectors: mixtures, schedules, quotas, and when a prompt may come again.

They compose in any order: a mark (a tier) never touches the score, and quotas bind the draw itself,
whatever marks prompts before or after them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief.filter import View
from dpsjax.rollouts.budget import quotas
from dpsjax.selectors.base import (
    GROUP,
    Batch,
    Evidence,
    Proposal,
    Selector,
    chain,
    over_shards,
    stateless,
)
from dpsjax.selectors.draw import best
from dpsjax.selectors.history import Visits, track_visits
from dpsjax.selectors.pool import column
from dpsjax.types import Key


def _share(fraction, batch_size):
    return jnp.round(jnp.asarray(fraction, jnp.float32) * batch_size).astype(jnp.int32)


def _require_selectors(**selectors: Selector) -> None:
    checks.require_type(Selector, "a selector: a recipe or a chain", **selectors)


def mix(other: Selector, fraction=0.1) -> Selector:
    """Give a fraction of the batch to another selector: the exploration floor.

    ``round(fraction * B)`` prompts are those that ``other`` would draw among the eligible; the
    parts before keep the rest. A prompt that both want takes one place only. With ``uniform()``
    every eligible prompt is drawn with probability at least ``round(fraction * B) / N`` a step,
    as far as quotas allow.

    Args:
        other: whose batch to mix in; it observes everything.
        fraction: in [0, 1]; may be traced.

    Returns:
        a part to put last.

    Raises:
        TypeError: ``other`` is no selector.
        ValueError: the fraction is outside [0, 1].
    """
    _require_selectors(other=other)
    checks.require_scalar(0.0, 1.0, fraction=fraction)

    def propose(key: Key, proposal: Proposal, state):
        part_key, draw_key = jax.random.split(key)
        guest = proposal.replace(score=jnp.zeros_like(proposal.score))
        guest, state = other.propose(part_key, guest, state)
        return proposal.first(best(draw_key, guest, _share(fraction, proposal.batch_size))), state

    return other._replace(propose=propose, publish=lambda state: ())


def freeze(inner: Selector) -> Selector:
    """Use a selector whose state, say from an earlier run, no longer learns.

    Args:
        inner: its vetoes stay in force.

    Returns:
        the selector; nothing it does changes its state.

    Raises:
        TypeError: ``inner`` is no selector.
    """
    _require_selectors(inner=inner)
    return inner._replace(
        propose=lambda key, proposal, state: (inner.propose(key, proposal, state)[0], state),
        observe=lambda evidence, state: (inner.observe(evidence, state)[0], state),
        drawn=lambda batch, proposal, state: (inner.drawn(batch, proposal, state)[0], state),
        advance=lambda state: state,
    )


def schedule(before: Selector, after: Selector, step) -> Selector:
    """One selector for the first steps, another from then on; both learn all the time.

    Args:
        before: draws and vetoes until ``step`` steps have passed.
        after: from then on. Its beliefs are the ones published.
        step: may be traced.

    Returns:
        the selector.

    Raises:
        TypeError: one is no selector, or ``step`` no number.
        ValueError: ``step`` is negative.
    """
    _require_selectors(before=before, after=after)
    checks.require_scalar(0.0, jnp.inf, step=step)

    def pick(count, early, late):
        """Field by field; what one of them left out is what it stands for."""
        is_late = count >= jnp.asarray(step, jnp.int32)
        return jax.tree.map(lambda a, b: jnp.where(is_late, b, a), early, late)

    def init(num_prompts: int, data=None):
        states = before.init(num_prompts, data), after.init(num_prompts, data)
        return jnp.zeros((), jnp.int32), *states

    def propose(key: Key, proposal: Proposal, state):
        count, first, second = state
        early, first = before.propose(key, proposal, first)
        late, second = after.propose(key, proposal, second)
        early, late = _alike(early, late)
        return pick(count, early, late), (count, first, second)

    def observe(evidence: Evidence, state):
        count, first, second = state
        early, first = before.observe(evidence, first)
        late, second = after.observe(evidence, second)
        accept, weight = pick(count, (early.accept, early.weight), (late.accept, late.weight))
        return evidence.replace(accept=accept, weight=weight), (count, first, second)

    def drawn(batch: Batch, proposal: Proposal, state):
        count, first, second = state
        early, first = before.drawn(batch, proposal, first)
        late, second = after.drawn(batch, proposal, second)
        return pick(count, early, late), (count, first, second)

    def advance(state):
        count, first, second = state
        return count + 1, before.advance(first), after.advance(second)

    return Selector(init, propose, observe, advance, lambda state: after.publish(state[2]), drawn)


def _alike(*proposals: Proposal) -> list[Proposal]:
    """The same proposals with the same fields filled, of the same types."""
    low = min(proposal.tiers[0] for proposal in proposals)
    high = max(proposal.tiers[1] for proposal in proposals)
    dtype = max((proposal.score.dtype for proposal in proposals), key=lambda d: d.itemsize)
    rows = proposals[0].score.shape
    quotas = next((p.quotas for p in proposals if p.quotas is not None), None)
    tiered = any(proposal.tier is not None for proposal in proposals)
    weighed = any(proposal.weight is not None for proposal in proposals)

    def fill(proposal: Proposal) -> Proposal:
        changes = {"score": proposal.score.astype(dtype), "tiers": (low, high), "beliefs": ()}
        if tiered and proposal.tier is None:
            changes["tier"] = jnp.zeros(rows, jnp.int32)
        if weighed and proposal.weight is None:
            changes["weight"] = jnp.ones(rows, jnp.float32)
        if quotas is not None and proposal.quotas is None:  # one source has all places
            places = jnp.zeros_like(quotas).at[0].set(proposal.batch_size)
            changes |= {"quotas": places, "strata": jnp.zeros(rows, jnp.int32)}
        return proposal.replace(**changes)

    return [fill(proposal) for proposal in proposals]


def stratify(shares, source: str = "source") -> Selector:
    """Give each source of prompts its share of the batch, and its best prompts the places.

    Places that a source cannot fill go to the best prompts of the others.

    Args:
        shares: [S] non-negative weights; may be traced.
        source: name of the column of the data with each prompt's source, int[N] in 0..S-1.

    Returns:
        a part to put anywhere; quotas bind the draw, and what others mark keeps to them.

    Raises:
        TypeError: ``shares`` holds no numbers.
        ValueError: one is negative, or none is positive.
    """
    checks.require_range(0.0, jnp.inf, shares=shares)
    weights = jnp.asarray(shares)
    if weights.ndim != 1 or (checks.is_concrete(weights) and not weights.sum() > 0):
        raise ValueError(f"shares={shares!r} must be [S] weights, and one of them positive")

    def propose(key: Key, proposal: Proposal, sources):
        places = quotas(weights.astype(jnp.float32), proposal.batch_size)
        return proposal.replace(strata=sources, quotas=places), sources

    def init(num_prompts: int, data=None):
        return column(data, source, num_prompts, jnp.int32, "stratify", below=weights.shape[0])

    return Selector(init, propose)


def cool_down(steps, strict: bool = True) -> Selector:
    """Never draw a prompt again within ``steps`` steps of its last rollouts.

    Args:
        steps: n; a prompt seen in step t may come again in step t + n + 1; may be traced.
        strict: if the pool is too small, whether to pad the batch, or else to fill it with
            prompts that are still cooling.

    Returns:
        a part.

    Raises:
        TypeError: ``steps`` is no number.
        ValueError: ``steps`` is negative.
    """
    checks.require_scalar(0.0, jnp.inf, steps=steps)

    def propose(key, proposal: Proposal) -> Proposal:
        visits = proposal.belief(Visits, "cool_down", "track_visits")
        return proposal.bar(
            (visits.times > 0) & (visits.age < jnp.asarray(steps, jnp.int32)), strict
        )

    return chain(track_visits(), stateless(propose))


def revisit(after, fraction=0.1) -> Selector:
    """Draw prompts believed solved again, once they were not seen for ``after`` steps.

    Believed solved: the last group all passed. Such prompts come first, the longest unseen ahead,
    up to ``fraction`` of the batch, so that forgetting is noticed.

    Args:
        after: steps unseen; may be traced.
        fraction: the largest share of the batch they take; may be traced.

    Returns:
        a part.

    Raises:
        TypeError: an argument is no number.
        ValueError: ``after`` is negative, or ``fraction`` not in [0, 1].
    """
    checks.require_scalar(0.0, jnp.inf, after=after)
    checks.require_scalar(0.0, 1.0, fraction=fraction)

    def propose(key, proposal: Proposal) -> Proposal:
        visits = proposal.belief(Visits, "revisit", "track_visits")
        due = visits.solved & (visits.age >= jnp.asarray(after, jnp.int32))
        waiting = proposal.bar(~due).replace(score=visits.age.astype(proposal.score.dtype))
        return proposal.first(best(key, waiting, _share(fraction, proposal.batch_size)))

    return chain(track_visits(), stateless(propose))


def allocate(
    split: Callable, group: int = GROUP, most: int | None = None, per_prompt: bool = False
) -> Selector:
    """Divide a step's rollouts among the drawn prompts by their believed pass rates.

    Args:
        split: ``(rate float[B], budget) -> int32[B]`` rollouts that sum to the budget, such as
            :func:`dpsjax.rollouts.vip_allocate`.
        group: G; the budget of a batch is ``B G``.
        most: rollouts that ``split`` gives one prompt at most; loops reserve room for them.
        per_prompt: whether prompts count alike in the loss, however many rollouts they got; else
            rollouts do.

    Returns:
        a part that needs any tracker; it says ``batch.trials``.
    """
    checks.require_counts(group=group, **checks.given(most=most))

    def drawn(batch: Batch, proposal: Proposal, state):
        view = proposal.belief(View, "allocate", "a tracker such as track_beta")
        local = batch.index - proposal.first_id
        here = batch.valid & (local >= 0) & (local < proposal.score.shape[0])
        rate = view.rate()[jnp.where(here, local, 0)]
        rate = over_shards(jnp.where(here, rate, 0), proposal.axis_name)
        trials = split(rate, batch.index.shape[0] * group).astype(jnp.int32)
        trials = jnp.where(batch.valid, trials, 0)
        if per_prompt:
            share = group / jnp.maximum(trials, 1).astype(batch.weight.dtype)
            batch = batch._replace(weight=batch.weight * share)
        return batch._replace(trials=trials), state

    return Selector(drawn=drawn)
