"""The combinators that any selector may be put into, by keywords: for settings and variants."""

import inspect

from dpsjax import checks
from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.combine import cool_down as cooled
from dpsjax.selectors.combine import mix, revisit
from dpsjax.selectors.combine import stratify as by_source


def surround(
    selector: Selector,
    *,
    cool_down: int = 0,
    mix_uniform: float = 0.0,
    revisit_after: int = 0,
    revisit_share: float = 0.1,
    stratify=None,
) -> Selector:
    """Put combinators behind a selector; none by default.

    Args:
        selector: a recipe or a chain.
        cool_down: steps in which a prompt is not drawn again, as far as the pool allows.
        mix_uniform: share of the batch that is drawn uniformly.
        revisit_after: prompts last seen solved come again after so many steps; 0: no such promise.
        revisit_share: largest share of the batch that these take.
        stratify: [S] shares of the batch that each source of prompts gets; the state is then made
            with the data ``source`` (see :func:`dpsjax.selectors.stratify`).

    Returns:
        the selector, unchanged where nothing is asked for.

    Raises:
        TypeError: ``selector`` is none, or a keyword no number.
        ValueError: a keyword is out of its range.

    >>> from dpsjax.selectors import dps
    >>> state = surround(dps(), cool_down=3, mix_uniform=0.1).init(8)
    """
    checks.require_type(Selector, "a recipe or a chain", selector=selector)
    checks.require_counts(least=0, cool_down=cool_down, revisit_after=revisit_after)
    checks.require_scalar(0.0, 1.0, mix_uniform=mix_uniform, revisit_share=revisit_share)
    parts = []
    if mix_uniform:
        parts.append(mix(chain(), mix_uniform))  # a chain of nothing draws uniformly
    if stratify is not None:
        parts.append(by_source(stratify))
    if revisit_after:
        parts.append(revisit(revisit_after, revisit_share))
    if cool_down:
        parts.append(cooled(cool_down, strict=False))
    return chain(selector, *parts) if parts else selector


KEYWORDS = tuple(inspect.signature(surround).parameters)[1:]
