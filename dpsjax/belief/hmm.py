"""The prompt filter of Dynamics-Predictive Sampling (arXiv 2603.10887, section 4).

Each prompt is a hidden Markov chain over ``K`` solve states (for ``K = 3``: unsolved, partial,
solved). Rolling a prompt out reveals its state; otherwise nothing is seen. The transition matrix
is column-stochastic, ``transition[i, j] = P(next = i | now = j)``, with an independent Dirichlet
belief per column whose counts forget exponentially.

One step, for every prompt (``decay`` is the paper's lambda, ``alpha0`` the prior counts), of which
:func:`observe` does the rows that were seen and :func:`advance` all of them:

1. posterior: one-hot at the revealed state, or the prior where nothing was seen;
2. expected transition counts of the step, only where a state was seen,
   ``xi[i, j] ~ posterior[i] transition[i, j] previous_posterior[j]``, summing to 1;
3. ``alpha <- decay alpha + (1 - decay) alpha0 + xi``;
4. next prior: ``transition(alpha) @ posterior``.

Two facts make it fast without changing a number. Counts only move towards ``alpha0`` while a
prompt is unseen, so ``alpha = alpha0 + decay**age * excess`` in closed form, and ``excess`` is
written for the observed rows alone. And the posterior of an unseen prompt is its prior, which is
kept beside it: a step makes one prediction a prompt, and a selection only reads what it ranks.
A prompt costs ``2 K + K*K`` floats and one integer.

The belief is a structure of arrays: one lane ``[N]`` for each state and each pair of states. Every
operation is a full-width vector operation, a few prompts are gathered and scattered lane by lane
without moving the rest, and a TPU pads nothing. Every formula below is written on lanes, so it
holds for one prompt (scalars) and for all of them alike.

An observation to which the prior gives probability 0 (``prior_alpha="local"``, from solved to
unsolved) is believed as it is and adds no counts: no transition of the model explains it.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import hmm_params, rows
from dpsjax.belief.blocks import in_blocks
from dpsjax.belief.hmm_params import Params, prior_counts  # noqa: F401
from dpsjax.belief.states import (  # noqa: F401
    PARTITIONS,
    merge_states,
    partition_state,
    pooled_state,
    solve_state,
)
from dpsjax.types import Array, Float, Int, Rows

UNSOLVED, PARTIAL, SOLVED = 0, 1, 2
params = hmm_params.params  # alpha [K, K]: prior counts; pi [K]: belief at first; decay: lambda


class Belief(NamedTuple):
    """What is believed of N prompts. Donate it to a jitted update: it is updated in place."""

    posterior: tuple[Float[Array, "N"], ...]  # lane i: P(state i) after the last finished step
    prior: tuple[Float[Array, "N"], ...]  # lane i: P(state i) in the step to come
    # Lane [i][j]: counts of moves from j to i above the prior's, when the prompt was last seen.
    excess: tuple[tuple[Float[Array, "N"], ...], ...]
    last: Int[Array, "N"]  # step at which the prompt was last seen
    step: Int[Array, ""]  # finished steps


def init(params: Params, num_prompts: int, counts_dtype=None) -> Belief:
    """The belief before the first step.

    Args:
        params: K states.
        num_prompts: N, at least 1.
        counts_dtype: float type that the counts are kept in, the parameters' own if not given.
            ``bfloat16`` saves 18 of 64 bytes a prompt; sums are still made in the parameters'
            type, and a count is rounded only when its prompt is seen.

    Returns:
        the belief: every prompt at ``params.pi``, no counts above the prior.

    Raises:
        TypeError: if ``num_prompts`` is no integer, or another argument something else.
        ValueError: if there is no prompt.
    """
    checks.require_type(Params, "of dpsjax.hmm.params", params=params)
    checks.require_counts(num_prompts=num_prompts)
    if counts_dtype is not None:
        hmm_params.require_float_type(counts_dtype)
    states, zero = range(params.pi.shape[0]), jnp.zeros(num_prompts, params.pi.dtype)
    return Belief(
        posterior=tuple(zero + params.pi[i] for i in states),
        prior=tuple(zero + params.pi[i] for i in states),
        excess=tuple(tuple(jnp.zeros_like(zero, counts_dtype) for _ in states) for _ in states),
        last=jnp.zeros(num_prompts, jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def _require(params, belief):
    checks.require_type(Params, "of dpsjax.hmm.params", params=params)
    checks.require_type(Belief, "of dpsjax.hmm.init or update", belief=belief)
    if len(belief.prior) != len(params.pi):
        raise ValueError(
            f"belief has {len(belief.prior)} states, params has {len(params.pi)}: make it of them"
        )


def _total(terms):
    return functools.reduce(operator.add, terms)


def _retained(decay, age):
    """decay**age for age >= 0, with 0**0 = 1; `exp` vectorises where `pow` does not."""
    kept = jnp.exp(age.astype(decay.dtype) * jnp.log(decay))
    return jnp.where(age <= 0, jnp.ones_like(kept), kept)


def _counts(params, excess, retained):
    """Lanes of the Dirichlet counts, alpha[i][j]."""
    states = range(params.pi.shape[0])
    excess = jax.tree.map(lambda lane: lane.astype(params.alpha.dtype), excess)
    return [[params.alpha[i, j] + retained * excess[i][j] for j in states] for i in states]


def _predict(params, posterior, excess, age):
    """Lanes of ``transition(alpha) @ posterior``.

    Dividing by the posterior's mass, which is 1 up to rounding, keeps the rounding of many unseen
    steps from adding up.
    """
    states = range(params.pi.shape[0])
    alpha = _counts(params, excess, _retained(params.decay, age))
    mass = _total(posterior[j] for j in states)
    share = [posterior[j] / (mass * _total(alpha[i][j] for i in states)) for j in states]
    return [_total(alpha[i][j] * share[j] for j in states) for i in states]


def _ahead(params: Params, belief: Belief) -> tuple[Float[Array, "N"], ...]:
    """Lanes of the prior of the step to come, written over ``belief.prior``."""

    def predict(fixed, lanes):
        params, step = fixed
        posterior, excess, last = lanes
        return tuple(_predict(params, posterior, excess, step - last))

    lanes = (belief.posterior, belief.excess, belief.last)
    return in_blocks(predict, (params, belief.step), lanes, belief.prior)


def _transition_counts(params, posterior, excess, age, one_hot):
    """Step 2, xi: lanes [i][j]; all zero where the model forbids what was seen."""
    states = range(params.pi.shape[0])
    alpha = _counts(params, excess, _retained(params.decay, age))
    share = [posterior[j] / _total(alpha[i][j] for i in states) for j in states]
    joint = [[one_hot[i] * alpha[i][j] * share[j] for j in states] for i in states]
    mass = _total(_total(row) for row in joint)
    possible = mass > 0
    scale = jnp.where(possible, 1 / jnp.where(possible, mass, jnp.ones_like(mass)), 0)
    return [[cell * scale for cell in row] for row in joint]


def prior(params: Params, belief: Belief) -> Float[Array, "K N"]:
    """P(next state | everything seen): what selection ranks (paper: mu^prior of the next step).

    Args:
        params: the hyperparameters.
        belief: N prompts.

    Returns:
        [K, N], columns sum to 1 up to rounding. Before the first step it is ``params.pi``.
    """
    _require(params, belief)
    return jnp.stack(belief.prior)


def posterior(params: Params, belief: Belief) -> Float[Array, "K N"]:
    """P(state of the last step | everything seen) (paper: mu^post)."""
    _require(params, belief)
    return jnp.stack(belief.posterior)


def alpha(params: Params, belief: Belief) -> Float[Array, "K K N"]:
    """Dirichlet counts now; ``alpha[i, j]`` belongs to the move from state j to state i."""
    _require(params, belief)
    retained = _retained(params.decay, belief.step - belief.last)
    return jnp.stack([jnp.stack(row) for row in _counts(params, belief.excess, retained)])


def update(
    params: Params,
    belief: Belief,
    index: Rows,
    state: Rows,
    *,
    unique_indices: bool = False,
) -> Belief:
    """One training step: decay, observe ``B`` prompts, predict all ``N``.

    Args:
        params: the hyperparameters.
        belief: N prompts; donate it under ``jit``.
        index: int32[B], which prompts were rolled out. -1 is padding. Repeated ids are merged
            (:func:`merge_states`).
        state: int32[B], their states, 0..K-1.
        unique_indices: the caller knows that no id is repeated, so that none need be merged; as
            in ``Array.at``, what happens to repeats then is not defined.

    Returns:
        the belief after the step.

    Raises:
        TypeError: if ``index`` or ``state`` does not hold integers, or ``params`` or ``belief`` is
            something else.
        ValueError: for an id outside [-1, N), a state outside [0, K) or unequal lengths. Under
            ``jit`` these are ``checkify`` errors, and without ``checkify`` such rows are dropped.
    """
    _require(params, belief)
    num_states, num_prompts = params.pi.shape[0], belief.last.shape[0]
    index = jnp.asarray(rows.ids("index", index, num_prompts))
    state = jnp.asarray(rows.states("state", state, num_states, index))
    index = jnp.where(state >= 0, index, -1)
    if not unique_indices:
        index, state = merge_states(index, state, num_states)
    return advance(params, observe(params, belief, index, state))


def observe(
    params: Params, belief: Belief, index: Int[Array, "B"], state: Int[Array, "B"]
) -> Belief:
    """What was seen in this step; unchecked, for distinct rows.

    A prompt that was seen in this step before, in another round of rollouts, is believed to be in
    the state that both reveal together (:func:`merge_states`); its counts stay those of the first.

    Args:
        params: the hyperparameters.
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        state: their states, 0..K-1.

    Returns:
        the belief, in which ``prior`` knows what was seen.
    """
    states, num_prompts = range(params.pi.shape[0]), belief.last.shape[0]
    source, target = rows.gather_index(index), rows.scatter_index(index, num_prompts)
    now, seen, ahead = jax.tree.map(
        lambda lane: lane[source], (belief.posterior, belief.excess, belief.prior)
    )
    age = belief.step - belief.last[source]
    again = age < 0
    before = jnp.argmax(jnp.stack(ahead), axis=0).astype(jnp.int32)
    state = jnp.where(again, pooled_state(before, state, len(states)), state)
    one_hot = tuple((state == i).astype(params.pi.dtype) for i in states)
    counts = _transition_counts(params, now, seen, age, one_hot)
    kept = params.decay * _retained(params.decay, age)

    def renewed(i, j):
        old = seen[i][j].astype(kept.dtype)
        return jnp.where(again, old, kept * old + counts[i][j])

    def write(lane, values):
        return lane.at[target].set(values.astype(lane.dtype), mode="drop")

    # Every write depends on the reads above, so that a donated belief is rewritten in place;
    # otherwise the compiler copies the lane. Counts are never negative: the choice is formal.
    read = counts[0][0] >= 0
    shown = [jnp.where(read, lane, jnp.zeros_like(lane)) for lane in one_hot]
    return belief._replace(
        prior=tuple(write(lane, seen) for lane, seen in zip(belief.prior, shown, strict=True)),
        excess=tuple(
            tuple(write(belief.excess[i][j], renewed(i, j)) for j in states) for i in states
        ),
        last=write(belief.last, jnp.where(read, belief.step + 1, belief.step)),
    )


def advance(params: Params, belief: Belief) -> Belief:
    """The passing of a step: what is believed of it becomes the posterior, and all are predicted.

    Args:
        params: the hyperparameters.
        belief: N prompts; donate it under ``jit``.

    Returns:
        the belief before the next step.
    """
    # The choice is formal: it has the compiler write over the old posterior, and not copy the
    # prior to a place of its own.
    begun = belief.step >= 0
    posterior = tuple(
        jnp.where(begun, now, old) for now, old in zip(belief.prior, belief.posterior, strict=True)
    )
    after = belief._replace(posterior=posterior, step=belief.step + 1)
    return after._replace(prior=_ahead(params, after))
