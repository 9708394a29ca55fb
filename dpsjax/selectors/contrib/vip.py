"""VIP (arXiv 2602.01601): a step's rollouts make the gradient's variance least."""

from typing import Literal

from dpsjax.checks import require_setting
from dpsjax.rollouts.budget import vip_allocate
from dpsjax.selectors.base import GROUP, Selector, chain
from dpsjax.selectors.combine import allocate
from dpsjax.selectors.contrib.knapsack import believing, require_mean
from dpsjax.selectors.entry import Entry


def vip(
    lowest: int = 3,
    most: int = 32,
    group: int = GROUP,
    estimator: Literal["rloo", "dr_grpo"] = "dr_grpo",
    inner: Selector | None = None,
) -> Selector:
    """VIP (arXiv 2602.01601): rollouts are split so that the variance of the gradient is least.

    See :func:`dpsjax.rollouts.vip_allocate`. Prompts count alike in the loss, however many
    rollouts they got.

    Departures: the rates are a belief's, not a Gaussian process's over embeddings; the paper
    relaxes, bisects and rounds, here the same problem is solved in whole numbers.

    Args:
        lowest: rollouts that every prompt of the batch gets; at least 3, or 2 for RLOO.
        most: rollouts of one prompt at most.
        group: G rollouts, the mean.
        estimator: whose variance: that of Dr. GRPO or of RLOO.
        inner: what draws the prompts; :func:`beta_mean` if not given. Its belief says what varies
            how much, or a Beta belief beside it if it has none.

    Returns:
        the selector; it says ``batch.trials``.

    Raises:
        ValueError: the bounds do not allow a mean of G, or the variance is not convex there.
    """
    require_mean(group, lowest, most)
    least = 2 if estimator == "rloo" else 3
    require_setting(lowest >= least, "lowest", lowest, f"at least {least} for {estimator}")

    def split(rate, total):
        return vip_allocate(rate, total, lowest, most, estimator)

    return chain(believing(inner), allocate(split, group, most, per_prompt=True))


ENTRIES = (Entry(vip, "2602.01601", most="most"),)
