"""The shared difficulty model and the rests between visits, prompt by prompt, in float64."""

import numpy as np


class DifficultyLoop:
    """An extended Kalman filter of logistic weights, and faded counts."""

    def __init__(self, features, strength, decay, memory, ridge):
        self.x = np.column_stack([features, np.ones(len(features))])
        self.k, self.decay, self.memory = strength, decay, memory
        self.prior = ridge * np.eye(self.x.shape[1])
        self.precision, self.w = self.prior.copy(), np.zeros(self.x.shape[1])
        self.passes, self.fails = np.zeros(len(features)), np.zeros(len(features))

    def rate(self, row):
        return 1 / (1 + np.exp(-self.x[row] @ self.w))

    def step(self, seen):
        slope, curve = 0 * self.w, 0 * self.prior
        for row, (passes, trials) in seen.items():
            worth = trials * (self.k + 1) / (self.k + trials)
            rate = self.rate(row)
            slope += worth * (passes / trials - rate) * self.x[row]
            curve += worth * rate * (1 - rate) * np.outer(self.x[row], self.x[row])
        for row, (passes, trials) in seen.items():
            self.passes[row] += passes
            self.fails[row] += trials - passes
        left = self.decay ** (len(seen) / len(self.x))  # of a whole pass: decay
        self.passes, self.fails = left * self.passes, left * self.fails
        self.w = self.w + np.linalg.inv(self.precision + curve) @ slope
        self.precision = self.memory * (self.precision + curve) + (1 - self.memory) * self.prior

    def counts(self, row):
        rate = self.rate(row)
        return (
            self.k * rate + self.passes[row] + 0.05,
            self.k * (1 - rate) + self.fails[row] + 0.05,
        )
