"""The shared difficulty model and the rests between visits, prompt by prompt, in float64."""

from math import lgamma

import numpy as np

STRENGTHS = [2.0**power for power in range(-2, 6)]


def betaln(a, b):
    return lgamma(a) + lgamma(b) - lgamma(a + b)


class DifficultyLoop:
    """An extended Kalman filter of logistic weights, and faded counts."""

    def __init__(self, features, strength, decay, memory, ridge):
        self.x = np.column_stack([features, np.ones(len(features))])
        self.strength, self.decay, self.memory = strength, decay, memory
        self.log_odds = np.zeros(len(STRENGTHS))
        self.prior = ridge * np.eye(self.x.shape[1])
        self.precision, self.w = self.prior.copy(), np.zeros(self.x.shape[1])
        self.passes, self.fails = np.zeros(len(features)), np.zeros(len(features))

    def rate(self, row):
        return 1 / (1 + np.exp(-self.x[row] @ self.w))

    @property
    def k(self):
        share = np.exp(self.log_odds) / np.exp(self.log_odds).sum()
        return np.exp(sum(w * np.log(k) for w, k in zip(share, STRENGTHS, strict=True)))

    def step(self, seen):
        odds = np.zeros(len(STRENGTHS))
        slope, curve = 0 * self.w, 0 * self.prior
        for row, (passes, trials) in seen.items():
            worth = trials * (self.strength + 1) / (self.strength + trials)
            rate = self.rate(row)
            slope += worth * (passes / trials - rate) * self.x[row]
            curve += worth * rate * (1 - rate) * np.outer(self.x[row], self.x[row])
            for place, k in enumerate(STRENGTHS):
                a, b = self.counts(row, k)
                odds[place] += betaln(a + passes, b + trials - passes) - betaln(a, b)
        for row, (passes, trials) in seen.items():
            self.passes[row] += passes
            self.fails[row] += trials - passes
        left = self.decay ** (len(seen) / len(self.x))  # of a whole pass: decay
        self.passes, self.fails = left * self.passes, left * self.fails
        self.log_odds = self.memory * (self.log_odds + odds)
        self.w = self.w + np.linalg.inv(self.precision + curve) @ slope
        self.precision = self.memory * (self.precision + curve) + (1 - self.memory) * self.prior

    def counts(self, row, k=None):
        rate, k = self.rate(row), self.k if k is None else k
        return k * rate + self.passes[row] + 0.05, k * (1 - rate) + self.fails[row] + 0.05
