"""LILO (NeurIPS 2025): the prompts of greatest learnability p (1 - p)."""

from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import add_learnability
from dpsjax.selectors.track import track_beta


def lilo(decay=0.0, prior=(1.0, 1.0)) -> Selector:
    """Learnability p (1 - p), the B best (LILO, NeurIPS 2025).

    Departures: the paper estimates p by rollouts made for the purpose; here p is the posterior
    mean of the last group (of more with a larger decay). The released code keeps a buffer of the
    K best of N candidates, renewed every 2 to 50 iterations, from which half or a tenth of each
    batch comes; here all of the batch is chosen anew from the whole pool. Mix in :func:`uniform`
    for its share.

    Args:
        decay: forgetting factor at each visit.
        prior: pseudo-counts before the first visit.

    Returns:
        the selector.
    """
    return chain(track_beta(decay, prior), add_learnability())


ENTRIES = (Entry(lilo, "NeurIPS 2025", variants={"lilo-half": {"mix_uniform": 0.5}}),)
