"""DAPO's dynamic sampling (arXiv 2503.14476): only groups that are mixed enter the loss."""

from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.recipes import uniform_epochs
from dpsjax.selectors.score import accept_mixed


def dynamic_sampling(inner: Selector | None = None) -> Selector:
    """DAPO's dynamic sampling (arXiv 2503.14476): only mixed groups enter the loss.

    The selector vetoes; filling the batch is the loop's part: see :func:`fill` and
    :class:`dpsjax.rollouts.Buffer` ("true fill" without, "capped" with a number of rounds; the
    released scripts: 4 or 10).

    Departures: surplus groups wait for the next batch, where the released trainers drop them. A
    group is judged by which rollouts passed, where DPS's scripts look at the spread of the
    *score*, a reward for the format included, and keep groups of one rollout, which here never
    differ and are left out.

    Args:
        inner: what draws the prompts; :func:`uniform_epochs` if not given, as DAPO's loader does.

    Returns:
        the selector.
    """
    return chain(uniform_epochs() if inner is None else inner, accept_mixed())


ENTRIES = (
    Entry(
        dynamic_sampling,
        "2503.14476",
        rounds=None,
        variants={"dynamic-sampling-dps": {"inner": "dps"}},
    ),
)
