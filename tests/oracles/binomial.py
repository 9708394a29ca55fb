"""The chain over solve rates with shared moves, as float64 loops and dense matrices."""

import math

import numpy as np


class RateLoop:
    """Cells in arc length, binomial counts, pooled moves: down, stay, up, jump."""

    def __init__(self, num_prompts, cells, moves, decay, memory):
        self.rate = [math.sin((k + 0.5) / cells * math.pi / 2) ** 2 for k in range(cells)]
        self.first_moves, self.decay, self.memory = np.array(moves, float), decay, memory
        self.moves = self.first_moves.copy()
        self.start = np.full(cells, 1 / cells)
        self.post = [None] * num_prompts  # None: never seen

    def kinds(self):
        """Column-stochastic matrices of the four kinds of moves."""
        size = len(self.rate)
        down, up = np.zeros((size, size)), np.zeros((size, size))
        for k in range(size):
            down[max(k - 1, 0), k] = 1
            up[min(k + 1, size - 1), k] = 1
        return [down, np.eye(size), up, np.outer(self.start, np.ones(size))]

    def prior(self, n):
        if self.post[n] is None:
            return self.start.copy()
        chance = self.moves / self.moves.sum()
        return sum(c * kind @ self.post[n] for c, kind in zip(chance, self.kinds(), strict=True))

    def step(self, observed):
        chance, kinds = self.moves / self.moves.sum(), self.kinds()
        made, starts = np.zeros(4), []
        ahead = [self.prior(n) for n in range(len(self.post))]
        for n in range(len(self.post)):
            if n in observed:
                m, g = observed[n]
                seen = np.array([math.comb(g, m) * p**m * (1 - p) ** (g - m) for p in self.rate])
                after = ahead[n] * seen / (ahead[n] * seen).sum()
                if self.post[n] is None:
                    starts.append(after)
                else:
                    ways = [
                        c * (seen * (kind @ self.post[n])).sum()
                        for c, kind in zip(chance, kinds, strict=True)
                    ]
                    made += np.array(ways) / sum(ways)
                self.post[n] = after
            elif self.post[n] is not None:
                self.post[n] = ahead[n]
        self.moves = self.decay * self.moves + (1 - self.decay) * self.first_moves + made
        if starts:
            self.start = self.memory * self.start + (1 - self.memory) * np.mean(starts, axis=0)

    def mixed(self, n, group):
        return sum(
            q * (1 - p**group - (1 - p) ** group)
            for q, p in zip(self.prior(n), self.rate, strict=True)
        )
