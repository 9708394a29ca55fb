"""VCRL (arXiv 2509.19803): a gate on the variance of rewards, and a bank of what passed it."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.selectors.base import Evidence, Selector, chain, stateless
from dpsjax.selectors.combine import mix
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import add_average, rollout_variance, track_average
from dpsjax.selectors.recipes import uniform

# Defaults of the recipe and of its parts.
THRESHOLD = 0.5


def accept_variance(threshold=THRESHOLD) -> Selector:
    """Veto groups whose reward variance is small (VCRL, arXiv 2509.19803).

    The variance of k passes in n trials over the largest that n trials allow,
    ``k (n - k) / floor(n/2) / ceil(n/2)``, must reach the threshold. Each group is judged alone.

    Args:
        threshold: kappa in [0, 1]; may be traced. The published schedule is not known.

    Returns:
        a part without memory; trackers still learn from vetoed groups.

    Raises:
        ValueError: the threshold is outside [0, 1].
    """
    checks.require_scalar(0.0, 1.0, threshold=threshold)

    def observe(evidence: Evidence) -> Evidence:
        passes, trials = evidence.row_passes, evidence.row_trials
        half = trials // 2
        largest = (half * (trials - half)).astype(jnp.float32)
        spread = (passes * (trials - passes)).astype(jnp.float32)
        enough = spread >= jnp.asarray(threshold, jnp.float32) * largest
        return evidence.replace(accept=evidence.accept & enough & (spread > 0))

    return stateless(observe=observe)


def vcrl(threshold=THRESHOLD, inner: Selector | None = None, bank=0.0, momentum=0.9) -> Selector:
    """VCRL's variance gate and memory bank (arXiv 2509.19803).

    Groups of little reward variance do not train. A share of the batch comes from the memory
    bank: the prompts whose variance, averaged over their visits, is highest.

    Departures: the bank is the whole pool with a priority for each prompt, 0 until its first
    visit, instead of a queue of bounded size; its prompts take a fixed share of the batch, instead
    of the places of vetoed groups. The published schedule of the threshold is not known to us.

    Args:
        threshold: kappa; may be traced.
        inner: what draws the other prompts; :func:`uniform` if not given.
        bank: share of the batch from the bank, in [0, 1]; 0 for the gate alone.
        momentum: weight of the past in a prompt's priority.

    Returns:
        the selector.
    """
    checks.require_scalar(0.0, 1.0, bank=bank, momentum=momentum)  # by the recipe's names of them
    inner = uniform() if inner is None else inner
    memory = chain(
        track_average(rollout_variance, momentum, 0.0, first_visit_sets=False), add_average()
    )
    banked = [] if isinstance(bank, float) and bank == 0 else [mix(memory, bank)]
    return chain(inner, *banked, accept_variance(threshold))


ENTRIES = (Entry(vcrl, "2509.19803", variants={"vcrl-bank": {"bank": 0.25}}),)
