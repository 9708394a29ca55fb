"""Parts that turn a published belief into a score; scores of several parts add up."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.checks import is_concrete
from dpsjax.selectors.protocol import Proposal, Selector, stateless
from dpsjax.selectors.trackers import StateBelief


def _two_or_more(num_states: int) -> None:
    if num_states < 2:
        raise ValueError(f"num_states={num_states} must be at least 2")


def partial_states(num_states: int) -> tuple[float, ...]:
    """Target weights that count every state between the lowest and the highest.

    With 2 states, state 1 is the partial one.

    Raises:
        ValueError: fewer than 2 states.

    >>> partial_states(3)
    (0.0, 1.0, 0.0)
    """
    _two_or_more(num_states)
    if num_states == 2:
        return (0.0, 1.0)
    return tuple(float(0 < state < num_states - 1) for state in range(num_states))


def middle_state(num_states: int) -> tuple[float, ...]:
    """Target weights that count the middle state alone.

    Raises:
        ValueError: fewer than 2 states.

    >>> middle_state(5)
    (0.0, 0.0, 1.0, 0.0, 0.0)
    """
    _two_or_more(num_states)
    middle = 1 if num_states == 2 else num_states // 2
    return tuple(float(state == middle) for state in range(num_states))


def add_state_prob(target=None, scale=1.0) -> Selector:
    """Add the probability that the prompt's next rollouts land in the target states.

    The score of DPS (arXiv 2603.10887): the predicted probability of being partially solved.

    Args:
        target: a weight per state [K]; :func:`partial_states` if not given.
        scale: factor on the score; may be traced.

    Returns:
        a part that needs :func:`track_hmm` before it.
    """
    checks.require_finite(scale=scale)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        prob = proposal.belief(StateBelief, "add_state_prob", "track_hmm").prob
        weights = partial_states(prob.shape[0]) if target is None else target
        if len(weights) != prob.shape[0]:
            raise ValueError(f"target must have {prob.shape[0]} weights, got {len(weights)}")
        # Lanes that are known not to count are not even computed.
        lanes = [k for k, w in enumerate(weights) if not (is_concrete(w) and w == 0)]
        score = sum(jnp.asarray(weights[k], prob.dtype) * prob[k] for k in lanes)
        score = jnp.asarray(scale, prob.dtype) * score
        return proposal.replace(score=proposal.score.astype(prob.dtype) + score)

    return stateless(propose)


def add_entropy(scale=0.1) -> Selector:
    """Add the entropy of the predicted state, in nats (the "DPS+Entropy" ablation).

    Args:
        scale: the bonus's weight; may be traced. The paper's value is not published; unseen
            prompts have the largest entropy (log K), so a large weight prefers them.

    Returns:
        a part that needs :func:`track_hmm` before it.
    """
    checks.require_finite(scale=scale)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        prob = proposal.belief(StateBelief, "add_entropy", "track_hmm").prob
        # Lane by lane, which one loop computes; a sum over an axis would stack the lanes first.
        entropy = -sum(prob[k] * jnp.log(prob[k] + 1e-10) for k in range(prob.shape[0]))
        bonus = jnp.asarray(scale, prob.dtype) * entropy
        return proposal.replace(score=proposal.score.astype(prob.dtype) + bonus)

    return stateless(propose)
