"""Beliefs as distributions of distrax: for smoothing, entropies, divergences (extra ``distrax``).

Prompts are the batch, so every method of a distribution answers for all of them at once; a chain
is of one prompt, because distrax's hidden Markov model has no batch.
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import hmm
from dpsjax.belief.beta import BetaView
from dpsjax.belief.filter import View
from dpsjax.types import Array, Float

if TYPE_CHECKING:
    import distrax


def _distrax():
    try:
        import distrax
    except ImportError as error:
        raise ImportError("distributions need distrax: pip install -e '.[distrax]'") from error
    return distrax


def chain(
    params: hmm.Params, belief: hmm.Belief, row: int, initial: Float[Array, "K"] | None = None
) -> "distrax.HMM":
    """The chain of one prompt, with the transitions expected now.

    Observations are symbols: a solve state 0..K-1 that was revealed, or K where nothing was seen.

    Args:
        params: of the filter.
        belief: of N prompts.
        row: of the prompt.
        initial: probabilities of the states in the first step; what is believed of the step to
            come if not given. ``params.pi`` smooths a history from its start.

    Returns:
        a ``distrax.HMM``: ``forward``, ``forward_backward`` (smoothing), ``viterbi``, ``sample``.

    Raises:
        ImportError: distrax is not installed.
        ValueError: there is no such row.
    """
    distrax = _distrax()
    checks.require_counts(least=0, row=row)
    if row >= belief.last.shape[0]:
        raise ValueError(f"row={row} must be below {belief.last.shape[0]}, the number of prompts")
    counts = hmm.alpha(params, belief)[:, :, row]
    start = hmm.prior(params, belief)[:, row] if initial is None else initial
    # Nothing seen is as likely in every state, and so is it that something is.
    size, half = counts.shape[0], jnp.asarray(0.5, counts.dtype)
    shown = half * jnp.eye(size, size + 1, dtype=counts.dtype)
    return distrax.HMM(
        init_dist=distrax.Categorical(probs=start),
        trans_dist=distrax.Categorical(probs=(counts / counts.sum(axis=0, keepdims=True)).T),
        obs_dist=distrax.Categorical(probs=shown.at[:, size].set(half)),
    )


def transitions(params: hmm.Params, belief: hmm.Belief) -> "distrax.Dirichlet":
    """What is believed of the moves from each state; moves that the prior forbids have no density.

    Returns:
        a ``distrax.Dirichlet`` with batch [N, K], the states moved from, over the K moved to.

    Raises:
        ImportError: distrax is not installed.
    """
    return _distrax().Dirichlet(jnp.moveaxis(hmm.alpha(params, belief), (2, 1), (0, 1)))


def states(params: hmm.Params, belief: hmm.Belief) -> "distrax.Categorical":
    """The solve state that a group would reveal in the step to come.

    Returns:
        a ``distrax.Categorical`` with batch [N] over K states.

    Raises:
        ImportError: distrax is not installed.
    """
    return _distrax().Categorical(probs=hmm.prior(params, belief).T)


def rate(view: BetaView) -> "distrax.Beta":
    """The pass rate under a Beta belief.

    Returns:
        a ``distrax.Beta`` with batch [N].

    Raises:
        ImportError: distrax is not installed.
    """
    return _distrax().Beta(view.a, view.b)


def outcome(view: View, group: int = 8) -> "distrax.Categorical":
    """Whether none, some or all of a group pass, under any belief.

    Args:
        view: as published by a tracker.
        group: G rollouts.

    Returns:
        a ``distrax.Categorical`` with batch [N] over 3 outcomes.

    Raises:
        ImportError: distrax is not installed.
    """
    checks.require_counts(group=group)
    return _distrax().Categorical(probs=view.outcome(group).T)
