"""MaPP (arXiv 2609.34990): the chance that a group is informative, under a Beta belief."""

from dpsjax.selectors.base import GROUP, Selector, chain
from dpsjax.selectors.chance import draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import add_mixed_prob
from dpsjax.selectors.track import track_beta


def mapp(decay=0.5, group: int = GROUP, prior=(1.0, 1.0), top: bool = False) -> Selector:
    """MaPP's prompt selection: the chance that a group is informative, under a Beta belief.

    arXiv 2609.34990. Its other half, the denoised advantage, is
    :func:`dpsjax.belief.beta.denoised_advantages`.

    Args:
        decay: lambda; 0.5 in the paper.
        group: G rollouts.
        prior: (1, 1) in the paper.
        top: False draws in proportion to the score, as published; True takes the B best.

    Returns:
        the selector.
    """
    return chain(
        track_beta(decay, prior), add_mixed_prob(group), *([] if top else [draw_proportional()])
    )


ENTRIES = (Entry(mapp, "2609.34990", variants={"mapp-top": {"top": True}}),)
