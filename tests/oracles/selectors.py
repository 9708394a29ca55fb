"""Selectors as slow float64 loops over prompts and dictionaries, from the publications' formulas.

An observation is a dict: prompt -> (passes, trials).
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def log_beta(a, b):
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def digamma(x):
    value = 0.0
    while x < 20:
        value -= 1 / x
        x += 1
    return value + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


def beta_entropy(a, b):
    return (
        log_beta(a, b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)
    )


def beta_binomial(successes, trials, a, b):
    choose = math.comb(trials, successes)
    return choose * math.exp(log_beta(a + successes, b + trials - successes) - log_beta(a, b))


def solve_state(passes, trials, num_states):
    """The published partitions of the success rate, as intervals."""
    rate = Fraction(passes, trials)
    if num_states == 2:
        return int(0 < rate < 1)
    if rate in (0, 1):
        return (num_states - 1) * int(rate)
    third, fifth = Fraction(1, 3), Fraction(1, 5)
    if num_states == 3:
        return 1
    if num_states == 5:
        return 1 if rate < third else 2 if rate <= 2 * third else 3
    if rate < 2 * fifth:
        return 1 if rate < fifth else 2
    return 3 if rate <= 3 * fifth else 4 if rate <= 4 * fifth else 5


def state_score(probability, weights, entropy):
    """DPS's score of one prompt, with its entropy bonus."""
    bonus = -sum(p * math.log(p + 1e-10) for p in probability)
    return sum(w * p for w, p in zip(weights, probability, strict=True)) + entropy * bonus


def draw_law(weights, size):
    """Law of the set of the first ``size`` draws in proportion to weights, without replacement."""
    law = {}
    for order in itertools.permutations(range(len(weights)), size):
        chance, left = 1.0, sum(weights)
        for n in order:
            chance *= weights[n] / left
            left -= weights[n]
        drawn = frozenset(order)
        law[drawn] = law.get(drawn, 0.0) + chance
    return law


class BetaLoop:
    """Counts (a, b) of each prompt."""

    def __init__(self, num_prompts, decay, prior=(1.0, 1.0), forget_unseen=False):
        self.prior, self.decay, self.forget_unseen = np.array(prior), decay, forget_unseen
        self.counts = [np.array(prior, np.float64) for _ in range(num_prompts)]

    def step(self, observed):
        for n in range(len(self.counts)):
            if n in observed or self.forget_unseen:
                self.counts[n] = self.decay * self.counts[n] + (1 - self.decay) * self.prior
            if n in observed:
                passes, trials = observed[n]
                self.counts[n] = self.counts[n] + np.array([passes, trials - passes])


def informative_prob(a, b, group):
    every = math.exp(log_beta(a + group, b) - log_beta(a, b))
    none = math.exp(log_beta(a, b + group) - log_beta(a, b))
    return 1 - every - none


def information(a, b, group):
    after = sum(
        beta_binomial(s, group, a, b) * beta_entropy(a + s, b + group - s) for s in range(group + 1)
    )
    return beta_entropy(a, b) - after


def denoised_advantages(rewards, valid, a, b):
    values = np.zeros(np.shape(rewards))
    for row in range(len(rewards)):
        count = int(np.sum(valid[row]))
        for j in range(len(rewards[row])):
            if not valid[row][j]:
                continue
            r = float(rewards[row][j])
            left_a, left_b = a[row] - r, b[row] - 1 + r
            for s in range(1, count):
                if r == 1:
                    mass = beta_binomial(s - 1, count - 1, left_a, left_b)
                    values[row, j] += mass * math.sqrt((count - s) / s)
                else:
                    mass = beta_binomial(s, count - 1, left_a, left_b)
                    values[row, j] -= mass * math.sqrt(s / (count - s))
    return values


class AverageLoop:
    """Moving average of what each visit shows."""

    def __init__(self, num_prompts, decay, start, first_visit_sets=True):
        self.decay, self.first_visit_sets = decay, first_visit_sets
        self.value = [float(start)] * num_prompts
        self.change = [0.0] * num_prompts
        self.visits = [0] * num_prompts

    def step(self, observed, of):
        for n, (passes, trials) in observed.items():
            seen = of(passes / trials)
            new = self.decay * self.value[n] + (1 - self.decay) * seen
            if self.visits[n] == 0 and self.first_visit_sets:
                new = seen
            self.change[n] = new - self.value[n] if self.visits[n] else 0.0
            self.value[n] = new
            self.visits[n] += 1


def best_split(value, budget, lowest, highest):
    """Largest total of value(b, n) over all splits, by trying them all."""
    size = len(value)
    splits = itertools.product(range(lowest, highest + 1), repeat=size)
    return max(sum(value[b][n] for b, n in enumerate(s)) for s in splits if sum(s) == budget)


def largest_variance(rewards, count):
    return max(np.var(subset) for subset in itertools.combinations(rewards, count))
