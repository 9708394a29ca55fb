"""InSight (arXiv 2603.01907): weighted mutual information under a Beta belief."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta
from dpsjax.belief.beta import BetaView
from dpsjax.selectors.base import GROUP, Selector, chain
from dpsjax.selectors.chance import candidate_pool
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import from_view
from dpsjax.selectors.track import track_beta

# Defaults of the recipe and of its parts.
TARGET = 0.3


def add_information(group: int = GROUP, target=TARGET, sharpness=1.0) -> Selector:
    """InSight's weighted mutual information (arXiv 2603.01907).

    ``p (1 - p) exp(-sharpness (p - target)^2) I``, p the posterior mean and I the information
    that a group of rollouts carries about the solve probability.

    Args:
        group: G rollouts.
        target: mu; 0.3 in the paper.
        sharpness: eta; its published value is not known.

    Returns:
        a part that needs :func:`track_beta` before it.

    Raises:
        TypeError: a setting is no number.
        ValueError: the target is outside [0, 1], the sharpness negative, or the group empty.
    """
    checks.require_scalar(0.0, 1.0, target=target)
    checks.require_scalar(0.0, jnp.inf, sharpness=sharpness)
    checks.require_counts(group=group)

    def score(view: BetaView, key, ids):
        distance = beta.offset(view.a, view.b, target)
        weight = jnp.exp(-jnp.asarray(sharpness, distance.dtype) * distance * distance)
        weight = beta.variance_of_rollout(view.a, view.b) * weight
        return weight * beta.information(view.a, view.b, group)

    return from_view(score, BetaView, "add_information", "track_beta")


def insight(
    group: int = GROUP, target=TARGET, sharpness=1.0, decay=1.0, candidates: int | None = None
) -> Selector:
    """InSight (arXiv 2603.01907): weighted mutual information under a Beta belief.

    Args:
        group: G rollouts.
        target: mu; 0.3 in the paper.
        sharpness: eta; not published.
        decay: lambda; 1 in the paper.
        candidates: size of the random candidate pool; the whole pool if not given.

    Returns:
        the selector.
    """
    return chain(
        *([] if candidates is None else [candidate_pool(candidates)]),
        track_beta(decay),
        add_information(group, target, sharpness),
    )


ENTRIES = (Entry(insight, "2603.01907"),)
