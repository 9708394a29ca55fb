"""Published selectors, each a few lines over the shared parts."""

from dpsjax.selectors.gates import candidate_pool
from dpsjax.selectors.protocol import Selector, chain
from dpsjax.selectors.scores import add_entropy, add_state_prob
from dpsjax.selectors.trackers import track_hmm


def uniform() -> Selector:
    """Every prompt equally likely, without repeats in a batch (the paper's US)."""
    return chain()


def dps(
    decay=0.5,
    prior_alpha=1.0,
    prior_pi=None,
    num_states: int = 3,
    target=None,
    entropy=None,
    candidates: int | None = None,
) -> Selector:
    """Dynamics-Predictive Sampling: the B prompts most likely to be partially solved.

    arXiv 2603.10887, section 4 and algorithm 1. Follows the released sampler on its whole-pool
    settings, except where that gives NaN (see :mod:`dpsjax.belief.hmm`) or an order left to an
    unstable sort (here: equals at random, by the key).

    Args:
        decay: lambda. The paper: 0.7 on MATH, 0.5 on Countdown and Geometry3k.
        prior_alpha: 1.0 in the paper; see :func:`dpsjax.hmm.params`.
        prior_pi: uniform in the paper.
        num_states: 3 in the paper; 2, 5 and 7 are its ablations.
        target: weight per state [K]; all partial states if not given.
        entropy: weight of the entropy bonus ("DPS+Entropy"); none if not given.
        candidates: size of a random candidate pool; the whole pool if not given, as in the
            released scripts.

    Returns:
        the selector.
    """
    return chain(
        *([] if candidates is None else [candidate_pool(candidates)]),
        track_hmm(decay, prior_alpha, prior_pi, num_states),
        add_state_prob(target),
        *([] if entropy is None else [add_entropy(entropy)]),
    )
