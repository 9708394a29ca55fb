"""Pass rate and outcome of a group (none, some, all) under a belief, in plain float64."""

import math

import numpy as np

from tests.oracles.selectors import beta_binomial

# Rates of each solve state; those of two states are told apart by nothing but agreement.
CUTS = {
    2: ((0, 1), (0, 1)),
    3: ((0, 0), (1e-12, 1 - 1e-12), (1, 1)),
    5: ((0, 0), (1e-12, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1 - 1e-12), (1, 1)),
}


def of_rate(rate, group):
    """Of independent rollouts."""
    none, every = (1 - rate) ** group, rate**group
    return rate, np.array([none, 1 - none - every, every])


def of_states(prob):
    """Of a chain over solve states; with two, a group that agrees is as often all as none."""
    if len(prob) == 2:
        return 0.5, np.array([prob[0] / 2, prob[1], prob[0] / 2])
    middle = [(low + high) / 2 for low, high in CUTS[len(prob)]]
    rate = sum(p * m for p, m in zip(prob, middle, strict=True))
    return rate, np.array([prob[0], sum(prob[1:-1]), prob[-1]])


def states_of_rates(prob):
    """Chances of the cuts in which a drawn rate lies."""
    return (1.0, 1.0) if len(prob) == 2 else tuple(prob)


def of_beta(a, b, group):
    """A beta-binomial."""
    chance = [beta_binomial(count, group, a, b) for count in range(group + 1)]
    return a / (a + b), np.array([chance[0], sum(chance[1:-1]), chance[-1]])


def of_cells(prob, rates, group):
    """A mixture of binomials."""
    rate = sum(p * r for p, r in zip(prob, rates, strict=True))
    return rate, sum(p * of_rate(r, group)[1] for p, r in zip(prob, rates, strict=True))


def of_logit(mean, variance, group):
    """The integral over a normal logit, by many small steps."""
    grid = np.linspace(-9, 9, 4001)
    weight = np.exp(-(grid**2) / 2)
    weight /= weight.sum()
    rate = 1 / (1 + np.exp(-(mean + math.sqrt(variance) * grid)))
    none, every = (weight * (1 - rate) ** group).sum(), (weight * rate**group).sum()
    return (weight * rate).sum(), np.array([none, 1 - none - every, every])
