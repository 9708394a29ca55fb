"""The device side of a step: select, generate, update. Each is one jitted program.

All randomness is a function of the run's key and the number of the step, so the state before a
step decides the step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from dpsjax import selectors
from dpsjax.belief import hmm
from dpsjax.grpo.advantages import (
    AdvantageFunction,
    Advantages,
    BeliefAdvantages,
    group_normalized,
)
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.grpo.update import LogProbFunction, UpdateFunction, UpdateMetrics
from dpsjax.policy import Rollouts, Sampling, generate, token_log_probs
from dpsjax.selectors import BetaBelief, Proposal, Selector, StateBelief, partial_states
from dpsjax.train.compilation import compiler_options
from dpsjax.train.prompts import Prompts, gather
from dpsjax.train.state import TrainState
from dpsjax.types import Array, Float, Key, PyTree

# What a key of a step is used for.
SELECT, GENERATE = 0, 1


class Draw(NamedTuple):
    """The prompts of a step, R rows: the batch, padded to a multiple of the devices.

    Attributes:
        index: Prompt ids, -1 is padding. int32[R].
        weight: Loss weights. float32[R].
        prompt: int32[R, P].
        prompt_mask: bool[R, P].
        predicted: Probability of each solve state before the rollouts. float32[K, R].
        occupancy: Mean of that probability over the whole pool. float32[K].
    """

    index: Array
    weight: Array
    prompt: Array
    prompt_mask: Array
    predicted: Array
    occupancy: Array


class Groups(NamedTuple):
    """Scored rollouts of the prompts of a step.

    Attributes:
        rollouts: The responses.
        rewards: float32[R, G].
        correct: bool[R, G].
        valid: Rollouts that were scored; the others do not count. bool[R, G].
    """

    rollouts: Rollouts
    rewards: Array
    correct: Array
    valid: Array


class RoundReport(NamedTuple):
    """What a round of rollouts showed, replicated on all devices; most steps have one round.

    Attributes:
        index: int32[R].
        passes: Correct rollouts. int32[R].
        trials: Valid rollouts. int32[R].
        accept: Whether the selector lets the loss see the group. bool[R].
        observed: Solve state, -1 where nothing was seen. int32[R].
        length: Mean tokens of a valid response. float32[R].
        predicted: Draw.predicted.
        occupancy: Draw.occupancy.
        reward: Mean over the valid rollouts. float32[].
        tokens: Generated tokens. int32[].
        covered: Distinct prompts visited so far. int32[].
        waiting: Accepted groups that wait for an update, see :mod:`dpsjax.train.refill`. int32[].
    """

    index: Array
    passes: Array
    trials: Array
    accept: Array
    observed: Array
    length: Array
    predicted: Array
    occupancy: Array
    reward: Array
    tokens: Array
    covered: Array
    waiting: Array


def step_key(key: Key, step: Array, use: int) -> Key:
    """The key of one use in one step."""
    return jax.random.fold_in(jax.random.fold_in(key, step), use)


def round_key(key: Key, number: int) -> Key:
    """The key that stands for the run's in the later rounds of a step, counted from 0."""
    return jax.random.fold_in(key, number) if number else key


def watched(selector: Selector, counts: bool = False) -> Selector:
    """A selector that certainly publishes a belief about solve states, for the record.

    One that does not gets DPS's tracker in front, which changes nothing about what it selects.

    Args:
        selector: a recipe or a chain.
        counts: whether it must publish a Beta belief too, as denoised advantages need; one that
            does not gets MaPP's tracker in front (decay 0.5, prior (1, 1)).

    Returns:
        the selector to train with.
    """

    def beliefs():
        return _propose(selector, selector.init(1)).beliefs

    published = [type(belief) for belief in jax.eval_shape(beliefs)]
    trackers = [] if StateBelief in published else [selectors.track_hmm()]
    if counts and BetaBelief not in published:
        trackers.append(selectors.track_beta(0.5))
    return selectors.chain(*trackers, selector) if trackers else selector


def _propose(selector: Selector, state: PyTree) -> Proposal:
    """A proposal for every row; its draws are not those of the step, its beliefs are."""
    rows = state.active.shape[0]
    proposal = Proposal(
        ids=jnp.arange(rows, dtype=jnp.int32),
        score=jnp.zeros(rows, jnp.float32),
        eligible=jnp.ones(rows, bool),
        weight=jnp.ones(rows, jnp.float32),
    )
    return selector.propose(jax.random.key(0), proposal, state)[0]


def predict(selector: Selector, state: PyTree) -> Float[Array, "K N"]:
    """Probability of each solve state that rollouts would show now.

    Args:
        selector: of :func:`watched`.
        state: its state.

    Returns:
        float[K, N].
    """
    return _propose(selector, state).belief(StateBelief, "the record", "track_hmm").prob


def make_select(
    selector: Selector, batch_size: int, rows: int, mesh: Mesh, selector_shardings: PyTree
) -> Callable:
    """Build the selection stage.

    Args:
        selector: of :func:`watched`.
        batch_size: B.
        rows: R >= B, a multiple of the devices that share a batch.
        mesh: the devices.
        selector_shardings: of the selector's state.

    Returns:
        jitted ``(selector_state, key, step, prompts) -> (Draw, selector_state)``; it donates the
        selector's state.
    """

    def run(state: PyTree, key: Key, step: Array, pool: Prompts):
        batch, after = selectors.select(selector, step_key(key, step, SELECT), state, batch_size)
        short = rows - batch_size
        index = jnp.pad(batch.index, (0, short), constant_values=-1)
        prompt, mask = gather(pool, index)
        prob = predict(selector, state)
        active = state.active.astype(prob.dtype)[None]
        draw = Draw(
            index=index,
            weight=jnp.pad(batch.weight, (0, short)),
            prompt=prompt,
            prompt_mask=mask,
            predicted=prob[:, jnp.maximum(index, 0)].astype(jnp.float32),
            occupancy=((prob * active).sum(axis=1) / active.sum()).astype(jnp.float32),
        )
        return draw, after

    split: Any = batch_sharding(mesh)  # Any: a sharding stands where the array will be
    whole: Any = replicated(mesh)
    draw = Draw(split, split, split, split, whole, whole)
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


def learn_from_round(
    selector: Selector,
    state: TrainState,
    draw: Draw,
    groups: Groups,
    *,
    advantages: AdvantageFunction | BeliefAdvantages = group_normalized,
    keep: int | None = None,
) -> tuple[TrainState, RolloutBatch, RoundReport]:
    """Let the belief and the counters learn from a round of rollouts; the policy comes later.

    Args:
        selector: of :func:`watched`.
        state: before.
        draw: the prompts.
        groups: their scored rollouts.
        advantages: of :mod:`dpsjax.grpo.advantages`.
        keep: Rollouts of each group that the loss may see (:func:`max_variance_subset`).

    Returns:
        ``(state, batch, report)``; the batch is what a policy update consumes.
    """
    counted = groups.valid & (draw.index >= 0)[:, None]
    trials = counted.sum(axis=1, dtype=jnp.int32)
    passes = (groups.correct & counted).sum(axis=1, dtype=jnp.int32)
    accept, belief = selectors.observe(
        selector,
        state.selector,
        draw.index,
        passes,
        trials,
        rewards=groups.correct.astype(jnp.float32),
        entropies=_mean_entropy(groups.rollouts, counted),
    )
    kept = counted
    if keep is not None:
        # A mask: shapes stay those of the whole group, and so does the cost of the update.
        kept &= selectors.max_variance_subset(groups.rewards, keep)
    if isinstance(advantages, BeliefAdvantages):
        found = _believed_advantages(advantages, selector, belief, draw.index, groups, kept)
    else:
        found = advantages(groups.rewards, kept)
    batch = _loss_batch(draw, groups, kept, accept, found)
    late = selectors.late_weights(selector, belief, draw.index)
    batch = batch._replace(weight=batch.weight * late)
    new = state._replace(
        selector=belief,
        position=state.position + (draw.index >= 0).sum(dtype=jnp.int32),
        visits=_count_visits(state.visits, draw.index),
    )
    generated = groups.rollouts.mask & counted[:, :, None]
    tokens = generated.sum(axis=(1, 2), dtype=jnp.int32)
    total = jnp.maximum(trials.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    report = RoundReport(
        index=draw.index,
        passes=passes,
        trials=trials,
        accept=accept,
        observed=hmm.solve_state(passes, trials, draw.predicted.shape[0]),
        length=tokens.astype(jnp.float32) / jnp.maximum(trials, 1).astype(jnp.float32),
        predicted=draw.predicted,
        occupancy=draw.occupancy,
        reward=jnp.where(counted, groups.rewards, 0).sum() / total,
        tokens=tokens.sum(dtype=jnp.int32),
        covered=(new.visits > 0).sum(dtype=jnp.int32),
        waiting=jnp.zeros((), jnp.int32),
    )
    return new, batch, report


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
        selector: of :func:`watched`.
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
        new = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
        return new, report, metrics, batch

    whole: Any = replicated(mesh)
    split: Any = batch_sharding(mesh)
    places = (state_shardings, whole, whole, split)
    options = compiler_options(mesh)
    return jax.jit(run, donate_argnums=0, out_shardings=places, compiler_options=options)


def _believed_advantages(
    advantages: BeliefAdvantages,
    selector: Selector,
    belief: PyTree,
    index: Array,
    groups: Groups,
    kept: Array,
) -> Advantages:
    """Advantages from the Beta belief that has seen these groups."""
    rows = jnp.maximum(index, 0)
    wanted = _propose(selector, belief).belief(BetaBelief, "the advantages", "track_beta")
    a, b = wanted.a[rows], wanted.b[rows]
    passed = groups.correct.astype(groups.rewards.dtype)
    return advantages.function(passed, kept, a.astype(passed.dtype), b.astype(passed.dtype))


def _loss_batch(
    draw: Draw, groups: Groups, counted: Array, accept: Array, advantages: Advantages
) -> RolloutBatch:
    """What the policy update consumes."""
    log_probs = groups.rollouts.log_probs
    return RolloutBatch(
        index=draw.index,
        prompt=draw.prompt,
        prompt_mask=draw.prompt_mask,
        tokens=groups.rollouts.tokens,
        mask=groups.rollouts.mask & counted[:, :, None],
        # Clipping would hide an infinite ratio; NaN makes the update skip the step and count it.
        log_probs=jnp.where(jnp.isfinite(log_probs), log_probs, jnp.nan),
        advantages=advantages.values,
        informative=advantages.informative,
        accept=accept,
        weight=draw.weight,
    )


def _mean_entropy(rollouts: Rollouts, counted: Array) -> Array:
    """An estimate of each rollout's mean token entropy, NaN where it does not count.

    Minus the log-probability of what was drawn: without bias where all tokens could be drawn.
    """
    tokens = rollouts.mask.sum(axis=-1, dtype=jnp.int32)
    surprise = -jnp.where(rollouts.mask, rollouts.log_probs, 0).sum(axis=-1)
    mean = surprise / jnp.maximum(tokens, 1).astype(surprise.dtype)
    return jnp.where(counted & (tokens > 0), mean, jnp.nan)


def _count_visits(visits: Array, index: Array) -> Array:
    """One more visit for each prompt of the batch; padding goes past the end and is dropped."""
    rows = jnp.where(index < 0, visits.shape[0], index)
    return visits.at[rows].add(1, mode="drop")


def partial_probability(predicted: Float[Array, "K R"]) -> Float[Array, "R"]:
    """Probability that a prompt is partially solved.

    Args:
        predicted: of every solve state.

    Returns:
        float32[R].
    """
    weights = jnp.asarray(partial_states(predicted.shape[0]), predicted.dtype)
    return weights @ predicted
