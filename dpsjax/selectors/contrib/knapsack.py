"""Knapsack RL (arXiv 2509.25849): a step's rollouts go where they are worth most."""

from dpsjax import checks
from dpsjax.rollouts import budget
from dpsjax.selectors.base import GROUP, Selector, chain
from dpsjax.selectors.combine import allocate
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.recipes import beta_mean
from dpsjax.selectors.track import track_beta


def require_mean(group: int, lowest: int, most: int) -> None:
    """Refuse bounds that do not allow a mean of G rollouts a prompt."""
    checks.require_counts(least=0, lowest=lowest)
    checks.require_counts(group=group, most=most)
    if not lowest <= group <= most:
        raise ValueError(
            f"group={group} is the mean of what the prompts get: it must lie between "
            f"lowest={lowest} and most={most}"
        )


def believing(inner: Selector | None) -> Selector:
    """What draws the prompts, with a belief of pass rates: its own or a Beta belief beside it."""
    return beta_mean() if inner is None else chain(track_beta(0.5), inner)


def knapsack(
    lowest: int = 2, most: int = 32, group: int = GROUP, inner: Selector | None = None
) -> Selector:
    """Knapsack RL (arXiv 2509.25849): a step's rollouts go where they are worth most.

    What is worth how much: :func:`dpsjax.rollouts.knapsack_value`; the split is exact dynamic
    programming. Rollouts count alike in the loss.

    Departures: the rates are a belief's, where the release has them given by the epoch before;
    a prompt without history gets what its prior is worth, not G; at most 32 rollouts, for which a
    loop reserves room, where the release allows 128.

    Args:
        lowest: rollouts that every prompt of the batch gets; 2 in the release.
        most: rollouts of one prompt at most.
        group: G rollouts, the mean.
        inner: what draws the prompts; :func:`beta_mean` if not given. Its belief says what
            rollouts are worth, or a Beta belief beside it if it has none.

    Returns:
        the selector; it says ``batch.trials``.

    Raises:
        ValueError: the bounds do not allow a mean of G.
    """
    require_mean(group, lowest, most)

    def split(rate, total):
        return budget.knapsack(budget.knapsack_value(rate, most), total, lowest)

    return chain(believing(inner), allocate(split, group, most))


ENTRIES = (Entry(knapsack, "2509.25849", most="most"),)
