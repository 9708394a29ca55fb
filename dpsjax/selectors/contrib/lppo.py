"""LPPO (arXiv 2507.06573): loss weights from learning progress, and that progress as a score."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.base import Evidence, Selector, chain
from dpsjax.selectors.combine import mix
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import Average, pass_rate, track_average
from dpsjax.selectors.recipes import uniform, uniform_epochs
from dpsjax.selectors.score import from_view
from dpsjax.types import Array, Float

# Defaults of the recipe and of its parts.
SLOPE = 8.0
BASE = 0.5
DECAY = 0.8


def progress_weight(change: Float[Array, "..."], slope=SLOPE, base=BASE) -> Float[Array, "..."]:
    """LPPO's loss weight ``sigmoid(slope change) + base`` (arXiv 2507.06573), 1 at no change.

    The constants are those of a third party's implementation that quotes the paper.

    >>> float(progress_weight(jnp.float32(0)))
    1.0
    """
    slope, base = jnp.asarray(slope, change.dtype), jnp.asarray(base, change.dtype)
    return jax.nn.sigmoid(slope * change) + base


def weigh_progress(decay=DECAY, slope=SLOPE, base=BASE) -> Selector:
    """Multiply a group's loss weight by :func:`progress_weight` of its prompt (arXiv 2507.06573).

    In the published order: the change is that of the averaged pass rate at the visit that is
    weighed, so the weight comes back from :func:`dpsjax.observe`, not with the batch.

    Args:
        decay: weight of the past in the averaged pass rate.
        slope: kappa.
        base: b; the weight lies in (base, base + 1).

    Returns:
        a part; it keeps the average and publishes it, as :func:`track_average` does.

    Raises:
        TypeError: a setting is no number.
        ValueError: the decay is outside [0, 1], or another one negative.
    """
    checks.require_scalar(0.0, jnp.inf, slope=slope, base=base)
    average = track_average(pass_rate, decay)

    def observe(evidence: Evidence, belief):
        evidence, belief = average.observe(evidence, belief)
        weight = progress_weight(evidence.of_rows(belief.change), slope, base)
        weight = evidence.weight * weight.astype(evidence.weight.dtype)
        return evidence.replace(weight=weight), belief

    return average._replace(observe=observe)


def lppo(decay=DECAY, slope=SLOPE, base=BASE, inner: Selector | None = None) -> Selector:
    """LPPO's learning-progress weights on the loss (arXiv 2507.06573).

    The weights come back from :func:`dpsjax.observe`, as ``feedback.weight``.

    Departures: no prefixes of solutions for prompts that are never solved.

    Args:
        decay: beta of the averaged pass rate; 0.8 in a third party's implementation.
        slope: kappa; 8.0 there.
        base: b; 0.5 there.
        inner: what draws the prompts; :func:`uniform` if not given.

    Returns:
        the selector.
    """
    return chain(uniform() if inner is None else inner, weigh_progress(decay, slope, base))


def add_progress(unseen=0.0) -> Selector:
    """The size of the average's last change; needs :func:`track_average` before it.

    Args:
        unseen: the score of prompts seen less than twice, which cannot have changed yet.
    """
    checks.require_scalar(-jnp.inf, jnp.inf, unseen=unseen)

    def score(average: Average, key, ids):
        change = jnp.abs(average.change)
        return jnp.where(average.visits < 2, jnp.asarray(unseen, change.dtype), change)

    return from_view(score, Average, "add_progress", "track_average")


def learning_progress(decay=DECAY, unseen=1.0, explore=0.1) -> Selector:
    """Draw the prompts whose averaged pass rate moved most at their last visit.

    The progress of LPPO (arXiv 2507.06573) used as a selector; not a published method.

    Args:
        decay: of the average.
        unseen: score of prompts seen less than twice; 1 lets them come first.
        explore: share of the batch for the least visited.

    Returns:
        the selector.
    """
    checks.require_scalar(0.0, 1.0, explore=explore)  # by the recipe's name of it
    return chain(
        track_average(pass_rate, decay), add_progress(unseen), mix(uniform_epochs(), explore)
    )


ENTRIES = (Entry(lppo, "2507.06573"), Entry(learning_progress))
