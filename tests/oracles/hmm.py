"""The DPS filter as a slow float64 loop over prompts, written from the paper's equations."""

import numpy as np


class LoopFilter:
    """One 3x3 (K x K) filter per prompt; every step of the equations spelled out."""

    def __init__(self, num_prompts, alpha0, pi0, decay):
        self.alpha0 = np.array(alpha0, np.float64)
        self.decay = float(decay)
        self.alpha = [self.alpha0.copy() for _ in range(num_prompts)]
        self.post = [np.array(pi0, np.float64) for _ in range(num_prompts)]
        self.prior = [np.array(pi0, np.float64) for _ in range(num_prompts)]

    def step(self, observed):
        """observed: dict prompt -> state."""
        for n in range(len(self.alpha)):
            expected = self.alpha[n] / self.alpha[n].sum(axis=0, keepdims=True)
            counts = np.zeros_like(self.alpha0)
            if n in observed:
                post = np.zeros(len(self.alpha0))
                post[observed[n]] = 1.0
                for i in range(len(post)):
                    for j in range(len(post)):
                        counts[i, j] = post[i] * expected[i, j] * self.post[n][j]
                total = counts.sum()
                counts = counts / total if total > 0 else np.zeros_like(counts)
            else:
                post = self.prior[n].copy()
            self.alpha[n] = self.decay * self.alpha[n] + (1 - self.decay) * self.alpha0 + counts
            self.prior[n] = (self.alpha[n] / self.alpha[n].sum(axis=0, keepdims=True)) @ post
            self.post[n] = post

    def arrays(self):
        """prior [K, N], posterior [K, N], alpha [K, K, N]."""
        return np.stack(self.prior, -1), np.stack(self.post, -1), np.stack(self.alpha, -1)
