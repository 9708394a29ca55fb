"""Parts that remember: each keeps a belief about every prompt and publishes it."""

from typing import NamedTuple

from dpsjax.belief import hmm
from dpsjax.selectors.protocol import Evidence, Proposal, Selector
from dpsjax.types import Array, Float


class StateBelief(NamedTuple):
    """Published by :func:`track_hmm`: probabilities of the state that a rollout would reveal."""

    prob: Float[Array, "K N"]


def track_hmm(decay=0.5, prior_alpha=1.0, prior_pi=None, num_states: int = 3) -> Selector:
    """Filter each prompt with the hidden Markov model of DPS (arXiv 2603.10887).

    Args:
        decay: forgetting factor lambda in [0, 1]; may be traced. The paper uses 0.7 on MATH and
            0.5 elsewhere.
        prior_alpha: see :func:`dpsjax.hmm.params`.
        prior_pi: [K] belief before the first step.
        num_states: 2, 3, 5 or 7 states of the success rate.

    Returns:
        a part that publishes a :class:`StateBelief`. Each ``observe`` is one time step.

    Raises:
        ValueError: as :func:`dpsjax.hmm.params` does.
    """
    params = hmm.params(num_states, decay, prior_alpha, prior_pi)

    def propose(key, proposal: Proposal, belief: hmm.Belief):
        del key
        return proposal.publish(StateBelief(hmm.prior(params, belief))), belief

    def observe(evidence: Evidence, belief: hmm.Belief):
        state = hmm.solve_state(evidence.passes, evidence.trials, params.pi.shape[0])
        return evidence, hmm.update(params, belief, evidence.index, state)

    return Selector(lambda num_prompts: hmm.init(params, num_prompts), propose, observe)
