"""SPEED-RL (arXiv 2506.09016): a few rollouts decide which prompts get the many."""

from dpsjax import checks
from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.recipes import uniform
from dpsjax.selectors.score import accept_mixed


def speed(screen: int = 4, rest: int = 20, inner: Selector | None = None) -> Selector:
    """SPEED-RL's screening (arXiv 2506.09016): a few rollouts decide who gets the many.

    Roll out ``screen`` times and observe: groups that are accepted get ``rest`` more rollouts, the
    others none. What passed the screening beyond a batch waits for the next one, as in the release.
    Beliefs of ``inner`` learn from the screening alone: a second ``observe`` of the same prompt
    would count as another visit.

    Args:
        screen: rollouts of the screening; 4 in the released scripts, 8 in that of the 1.5B model.
        rest: rollouts that follow it; 20, and 16 in that of the 1.5B model.
        inner: what draws the prompts; :func:`uniform` if not given.

    Returns:
        the selector.

    Raises:
        ValueError: there are fewer than 2 rollouts in the screening, which then always agree, or
            none after it.
    """
    checks.require_counts(least=2, screen=screen)
    checks.require_counts(rest=rest)
    return chain(uniform() if inner is None else inner, accept_mixed())


ENTRIES = (Entry(speed, "2506.09016", rounds=None, screen=("screen", "rest")),)
