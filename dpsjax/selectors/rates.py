"""Parts that score what is believed of the solve probability: Beta, average or Gaussian."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, ema, gaussian
from dpsjax.selectors.protocol import LateWeight, Proposal, Selector, stateless
from dpsjax.selectors.trackers import AverageBelief, BetaBelief, GaussianBelief, Visits
from dpsjax.types import Array, Float, Shaped


def wider(left: Shaped[Array, "..."], right: Shaped[Array, "..."]) -> jnp.dtype:
    """The wider of two float types; JAX's own promotion raises under strict rules."""
    return max(left.dtype, right.dtype, key=lambda dtype: dtype.itemsize)


def add(proposal: Proposal, score: Float[Array, "N"]) -> Proposal:
    """Add to the score, in the wider of the two float types."""
    dtype = wider(proposal.score, score)
    return proposal.replace(score=proposal.score.astype(dtype) + score.astype(dtype))


def add_nearness(target=0.5) -> Selector:
    """Minus the distance of the posterior mean from a target rate.

    Args:
        target: the rate wanted; may be traced.

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_finite(target=target)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(BetaBelief, "add_nearness", "track_beta")
        return add(proposal, -jnp.abs(beta.offset(belief.a, belief.b, target)))

    return stateless(propose)


def add_informative_prob(group: int = 8) -> Selector:
    """The probability that a group of rollouts neither all passes nor all fails (MaPP's score).

    Args:
        group: G rollouts, at least 2.

    Returns:
        a part that needs :func:`track_beta` before it.

    Raises:
        ValueError: if ``group`` is below 2.
    """
    checks.require_counts(group=group)
    if group < 2:
        raise ValueError(f"group must be at least 2, got {group}: one rollout always agrees")

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(BetaBelief, "add_informative_prob", "track_beta")
        return add(proposal, beta.informative_prob(belief.a, belief.b, group))

    return stateless(propose)


def add_information(group: int = 8, target=0.3, sharpness=1.0) -> Selector:
    """InSight's weighted mutual information (arXiv 2603.01907).

    ``p (1 - p) exp(-sharpness (p - target)^2) I``, p the posterior mean and I the information
    that a group of rollouts carries about the solve probability.

    Args:
        group: G rollouts.
        target: mu; 0.3 in the paper.
        sharpness: eta; its published value is not known.

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_finite(target=target, sharpness=sharpness)
    checks.require_counts(group=group)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(BetaBelief, "add_information", "track_beta")
        a, b = belief.a, belief.b
        distance = beta.offset(a, b, target)
        weight = jnp.exp(-jnp.asarray(sharpness, a.dtype) * distance * distance)
        weight = beta.variance_of_rollout(a, b) * weight
        return add(proposal, weight * beta.information(a, b, group))

    return stateless(propose)


def add_learnability(power=1.0) -> Selector:
    """``(p (1 - p))**power`` at the believed rate p.

    Args:
        power: 1 is LILO's learnability, 1/2 the standard deviation of a rollout.

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_finite(power=power)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(BetaBelief, "add_learnability", "track_beta")
        spread = beta.variance_of_rollout(belief.a, belief.b)
        return add(proposal, spread ** jnp.asarray(power, spread.dtype))

    return stateless(propose)


def add_average(scale=1.0) -> Selector:
    """The tracked average itself; needs :func:`track_average` before it.

    Args:
        scale: factor; may be traced.
    """
    checks.require_finite(scale=scale)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        value = proposal.belief(AverageBelief, "add_average", "track_average").value
        return add(proposal, jnp.asarray(scale, value.dtype) * value)

    return stateless(propose)


def add_progress(unseen=0.0) -> Selector:
    """The size of the average's last change; needs :func:`track_average` before it.

    Args:
        unseen: the score of prompts seen less than twice, which cannot have changed yet.
    """
    checks.require_finite(unseen=unseen)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(AverageBelief, "add_progress", "track_average")
        change = jnp.abs(belief.change)
        return add(
            proposal, jnp.where(belief.visits < 2, jnp.asarray(unseen, change.dtype), change)
        )

    return stateless(propose)


def add_bell(target=0.5, width=0.35) -> Selector:
    """``-(average - target)^2 / (2 width^2)``, the logarithm of GCS's Gaussian weight.

    Args:
        target: centre of the bell.
        width: its standard deviation.

    Returns:
        a part that needs :func:`track_average` before it.
    """
    checks.require_finite(target=target, width=width)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        value = proposal.belief(AverageBelief, "add_bell", "track_average").value
        ratio = (value - jnp.asarray(target, value.dtype)) / jnp.asarray(width, value.dtype)
        return add(proposal, -0.5 * ratio * ratio)

    return stateless(propose)


def add_expected_variance(points: int = 5) -> Selector:
    """E[p (1 - p)] under a Gaussian belief about the logit (KGPS, arXiv 2607.27610).

    Args:
        points: nodes of the Gauss-Hermite quadrature.

    Returns:
        a part that needs :func:`track_logit` before it.
    """
    checks.require_counts(points=points)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(GaussianBelief, "add_expected_variance", "track_logit")
        value = gaussian.expected_variance_of_rollout(belief.mean, belief.variance, points)
        return add(proposal, value)

    return stateless(propose)


def add_fewest_visits() -> Selector:
    """Minus the number of visits: each pass over the pool is without repeats.

    Returns:
        a part that needs :func:`track_visits` before it.
    """

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        times = proposal.belief(Visits, "add_fewest_visits", "track_visits").times
        return add(proposal, -times.astype(jnp.float32))

    return stateless(propose)


def weigh_progress(slope=8.0, base=0.5, late: bool = False) -> Selector:
    """Multiply the loss weight by LPPO's ``sigmoid(slope change) + base`` (arXiv 2507.06573).

    Departure unless ``late``: weights are fixed at the draw, so the change is that of the visit
    before.

    Args:
        slope: kappa.
        base: b; the weight lies in (base, base + 1).
        late: the published order, in which the rollouts that are weighed count; the weights are
            then had from :func:`late_weights`, and the loop must ask for them.

    Returns:
        a part that needs :func:`track_average` before it.
    """
    checks.require_finite(slope=slope, base=base)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        change = proposal.belief(AverageBelief, "weigh_progress", "track_average").change
        weight = ema.progress_weight(change, slope, base).astype(proposal.weight.dtype)
        if late:
            return proposal.publish(LateWeight(weight))
        return proposal.replace(weight=proposal.weight * weight)

    return stateless(propose)
