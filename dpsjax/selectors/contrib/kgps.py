"""KGPS (arXiv 2607.27610): a Kalman filter of the logit, ranked by the expected variance."""

import jax

from dpsjax import checks
from dpsjax.belief import kalman
from dpsjax.belief.kalman import GaussianView
from dpsjax.selectors.base import Selector, chain
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import from_view
from dpsjax.selectors.track import track_logit

# Defaults of the recipe and of its parts.
POINTS = 5


def add_expected_variance(points: int = POINTS) -> Selector:
    """E[p (1 - p)] under a Gaussian belief about the logit (KGPS, arXiv 2607.27610).

    Args:
        points: nodes of the Gauss-Hermite quadrature, an odd number.

    Returns:
        a part that needs :func:`track_logit` before it.

    Raises:
        TypeError: ``points`` is no integer.
        ValueError: it is not odd and positive.
    """
    checks.require_counts(points=points)
    checks.require_setting(points % 2 == 1, "points", points, "an odd number")

    def score(view: GaussianView, key, ids):
        if view.to_rate is not jax.nn.sigmoid:
            raise ValueError(
                "add_expected_variance needs a belief of logits: put track_logit "
                "before it in the chain"
            )
        return kalman.expected_variance_of_rollout(view.mean, view.variance, points)

    return from_view(score, GaussianView, "add_expected_variance", "track_logit")


def kgps(process_noise=0.1, variance=1.0, points: int = POINTS) -> Selector:
    """A Kalman filter of the logit, ranked by E[p (1 - p)] (after KGPS, arXiv 2607.27610).

    Known to us from its abstract and one description only (ARCUS's, whence the 5 nodes).

    Departures: the process noise is constant (the paper ties it to the size of the policy's
    update: pass that as a traced array); no warm-up is needed, for prompts never seen tie at
    random; noise and first variance are ours.

    Args:
        process_noise: variance of the logit that one step adds.
        variance: of the logit of prompts never seen.
        points: nodes of the quadrature, an odd number.

    Returns:
        the selector.
    """
    return chain(track_logit(process_noise, 0.0, variance), add_expected_variance(points))


ENTRIES = (Entry(kgps, "2607.27610"),)
