"""The field's rules as slow float64 loops, from the publications and their released code.

An observation is a dict: prompt -> (passes, trials).
"""

import itertools
import math

import numpy as np

from tests.oracles.selectors import information


def insight(a, b, group, target, sharpness):
    p = a / (a + b)
    return p * (1 - p) * math.exp(-sharpness * (p - target) ** 2) * information(a, b, group)


class LogitLoop:
    """Scalar Kalman filters of logits."""

    def __init__(self, num_prompts, process_noise, mean=0.0, variance=1.0):
        self.noise = process_noise
        self.mean = [mean] * num_prompts
        self.variance = [variance] * num_prompts

    def step(self, observed):
        for n in range(len(self.mean)):
            if n in observed:
                m, g = observed[n]
                z = math.log((m + 0.5) / (g - m + 0.5))
                error = 1 / (m + 0.5) + 1 / (g - m + 0.5)
                precision = 1 / self.variance[n] + 1 / error
                self.mean[n] = (self.mean[n] / self.variance[n] + z / error) / precision
                self.variance[n] = 1 / precision
            self.variance[n] += self.noise


def expected_spread(mean, variance, points):
    """E[p (1 - p)] by the physicists' Gauss-Hermite rule."""
    nodes, weights = np.polynomial.hermite.hermgauss(points)
    p = 1 / (1 + np.exp(-(mean + math.sqrt(2 * variance) * nodes)))
    return float(np.sum(weights * p * (1 - p)) / math.sqrt(math.pi))


class ArcLoop:
    """ARCUS's filters with adaptive drift and noise."""

    def __init__(self, num_prompts, rate, drift=0.0, noise=1e-3, refit=100):
        self.rate, self.drift, self.noise, self.refit = rate, drift, noise, refit
        self.measured, self.seen = [], set()
        self.mean = [math.pi / 4] * num_prompts
        self.variance = [math.pi**2 / 48] * num_prompts

    def step(self, observed):
        errors, sines, surplus = [], [], []
        for n, (m, g) in observed.items():
            if 0 < m < g:
                z, r = math.asin(math.sqrt((m + 0.375) / (g + 0.75))), 1 / (4 * g + 2)
            else:
                z, r = (0.0 if m == 0 else math.pi / 2), 1 / (2 * g)
            self.measured.append(z)
            self.seen.add(n)
            errors.append(z - self.mean[n])
            sines.append(math.sin(2 * self.mean[n]))
            surplus.append(errors[-1] ** 2 - self.variance[n] - r)
            gain = self.variance[n] / (self.variance[n] + r)
            self.mean[n] += gain * errors[-1]
            self.variance[n] *= 1 - gain
        if errors:
            self.drift += self.rate * np.mean(errors) / np.mean(sines)
            self.noise = max(self.noise + self.rate * np.mean(surplus), 0)
        if len(self.measured) >= self.refit > len(self.measured) - len(observed):
            for n in set(range(len(self.mean))) - self.seen:
                self.mean[n] = np.mean(self.measured)
                self.variance[n] = max(np.var(self.measured), 1e-6)
        for n in range(len(self.mean)):
            moved = self.mean[n] + self.drift * math.sin(2 * self.mean[n])
            self.mean[n] = min(max(moved, 0), math.pi / 2)
            self.variance[n] += self.noise


def arc_log_score(mean, variance, target, group):
    s = min(math.sin(target), math.cos(target)) / math.sqrt(2)
    kernel = math.sqrt(s * s / (s * s + variance))
    kernel *= math.exp(-((mean - target) ** 2) / (2 * (s * s + variance)))
    a = 1 + 2 * group * variance
    agree = math.exp(-group * mean**2 / a) + math.exp(-group * (math.pi / 2 - mean) ** 2 / a)
    return math.log(kernel) + math.log(max(1 - agree / math.sqrt(a), 1e-6))


def arc_paced_target(target, means, variances, group, temperature=0.3, slack=0.03, most=0.005):
    """Where ARCUS's target goes next."""
    low = math.asin(math.sqrt(1 - 0.5 ** (1 / group)))
    high = math.asin(math.sqrt(0.5 ** (1 / group)))
    yields = []
    for step in range(41):
        aim = low + (high - low) * step / 40
        total = drawn = 0.0
        for m, v in zip(means, variances, strict=True):
            weight = math.exp(arc_log_score(m, v, aim, group) / temperature)
            a = 1 + 2 * group * v
            agree = math.exp(-group * m**2 / a) + math.exp(-group * (math.pi / 2 - m) ** 2 / a)
            drawn += weight * (1 - agree / math.sqrt(a))
            total += weight
        yields.append((aim, drawn / total))
    wanted = next(aim for aim, found in yields if found >= max(y for _, y in yields) - slack)
    return target + min(max(wanted - target, -most), most)


class StreakLoop:
    """GRESO's streaks and base probabilities; a step may have several rounds."""

    def __init__(self, num_prompts, start=0.5, change=0.01, target=0.25):
        self.history = [[] for _ in range(num_prompts)]
        self.easy = self.hard = start
        self.change, self.target = change, target

    def step(self, rounds, epoch):
        kinds = []
        for observed in rounds:
            for n, (m, g) in observed.items():
                kind = "easy" if m == g else "hard" if m == 0 else "mixed"
                self.history[n].append(kind)
                kinds.append(kind)
        if kinds and epoch > 1:
            easy_share = kinds.count("easy") / len(kinds)
            hard_share = kinds.count("hard") / len(kinds)
            self.easy += -self.change if easy_share >= self.target / 3 else self.change
            self.hard += -self.change if hard_share >= self.target * 2 / 3 else self.change
            self.easy = min(max(self.easy, 0.05), 0.95)
            self.hard = min(max(self.hard, 0.05), 0.95)

    def chance(self, n):
        kind = self.history[n][-1] if self.history[n] else "mixed"
        if kind == "mixed":
            return 1.0
        streak = len(list(itertools.takewhile(lambda k: k == kind, reversed(self.history[n]))))
        return max((self.easy if kind == "easy" else self.hard) ** streak, 0.01)


def advantages(passes, trials):
    """Group-normalised advantages with the sample's standard deviation; none for one rollout."""
    rewards = np.array([1.0] * passes + [0.0] * (trials - passes))
    if trials < 2 or rewards.std(ddof=1) == 0:
        return np.zeros(trials)
    return (rewards - rewards.mean()) / rewards.std(ddof=1)


class CategoryLoop:
    """SEC's values of categories: those not drawn decay."""

    def __init__(self, category, num_categories, rate):
        self.category, self.rate = category, rate
        self.value = [0.0] * num_categories

    def step(self, rounds):
        sizes = [[] for _ in self.value]
        for observed in rounds:
            for n, (m, g) in observed.items():
                sizes[self.category[n]].append(np.mean(abs(advantages(m, g))))
        if any(sizes):
            for c, found in enumerate(sizes):
                reward = np.mean(found) if found else 0.0
                self.value[c] = (1 - self.rate) * self.value[c] + self.rate * reward


class HeldLoop:
    """The sampler of CurES's release: chances of an epoch of batches, and who may still come."""

    def __init__(self, num_prompts, batches, batch_size):
        self.accepted, self.all = np.zeros(num_prompts), np.zeros(num_prompts)
        self.batches, self.batch_size, self.step_of_epoch = batches, batch_size, 0
        self.remaining = set()

    def weights(self):
        """Chances of the next batch's first place, up to a factor."""
        if self.step_of_epoch == 0:
            rate = (self.accepted + 1) / (self.all + 2)
            self.held = np.exp(np.sqrt(rate * (1 - rate)) / ((self.accepted + 1) / 1e-2))
            self.remaining = set(range(len(rate)))
        if len(self.remaining) < self.batch_size:
            self.remaining = set(range(len(self.held)))
        return np.array([w if n in self.remaining else 0 for n, w in enumerate(self.held)])

    def step(self, batch, observed):
        self.remaining -= set(batch)
        for n, (m, g) in observed.items():
            self.accepted[n] += m
            self.all[n] += g
        self.step_of_epoch = (self.step_of_epoch + 1) % self.batches


class EpochLoop:
    """History resampling with sets: who may be drawn, and who comes first."""

    def __init__(self, num_prompts, exclude):
        self.everyone, self.exclude = set(range(num_prompts)), exclude
        self.out, self.solved, self.visited = set(), set(), set()

    def preferred(self):
        """(allowed, those of them not visited in this epoch), after ending a finished epoch."""
        if self.visited and not (self.everyone - self.out - self.visited - self._barred_now()):
            if self.exclude == "forever":
                self.out |= self.solved
            else:
                self.out = self.solved if self.exclude == "next_epoch" else set()
            self.solved, self.visited = set(), set()
        allowed = self.everyone - self.out - self._barred_now()
        allowed = allowed or self.everyone
        return allowed, allowed - self.visited

    def _barred_now(self):
        return self.solved if self.exclude == "this_epoch" else set()

    def step(self, observed):
        for n, (m, g) in observed.items():
            self.visited.add(n)
            self.out.discard(n)  # only if all had been left out: it shows something new
            (self.solved.add if m == g else self.solved.discard)(n)


def replay_probabilities(value, age, temperature, staleness, by_rank):
    value, age = np.array(value, np.float64), np.array(age, np.float64)
    if by_rank:
        rank = np.array([1 + np.sum(value > v) for v in value])
        worth = (1 / rank) ** (1 / temperature)
    else:
        worth = value ** (1 / temperature)
    return (1 - staleness) * worth / worth.sum() + staleness * age / age.sum()


def explorability(rewards, entropies, limit=1.5):
    values = []
    for row, entropy_row in zip(rewards, entropies, strict=True):
        real = [(r, e) for r, e in zip(row, entropy_row, strict=True) if not math.isnan(e)]
        r = np.array([x[0] for x in real])
        e = np.array([x[1] for x in real])
        if r.std() == 0:
            values.append(0.0)
            continue
        usual = e[r > 0.5].mean() if (r > 0.5).any() else 0.0
        total = 0.0
        for reward, entropy in real:
            if reward > 0.5 or entropy <= limit * usual:
                total += abs(reward - r.mean()) / r.std() * entropy
        values.append(total / len(real))
    return np.array(values)


def dpp_greedy(kernel, weights, count):
    """The row that makes the determinant of the weighted block largest, again and again."""
    weighted = np.sqrt(np.outer(weights, weights)) * np.array(kernel, np.float64)
    chosen = []
    for _ in range(count):
        best = max(
            (n for n in range(len(weights)) if n not in chosen),
            key=lambda n: np.linalg.det(weighted[np.ix_([*chosen, n], [*chosen, n])]),
        )
        chosen.append(best)
    return chosen


def pagerank(similarity, damping):
    size = len(similarity)
    links = np.array(similarity, np.float64) * (1 - np.eye(size))
    links = links / links.sum(axis=0)
    return np.linalg.solve(np.eye(size) - damping * links, np.full(size, (1 - damping) / size))
