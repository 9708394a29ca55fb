"""Measures of several responses to each problem: pass@k, maj@k, and their intervals.

All are exact over the subsets of k of the n responses that were drawn; nothing is resampled.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from dpsjax import checks

# Binomial coefficients of more are no float64.
MOST_SAMPLES = 1000


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """The chance that one of k responses is right, without bias (Chen et al., 2107.03374).

    Args:
        correct: bool[N, n].
        k: at most n.

    Returns:
        float64[N]; of each problem, the share of subsets of k with a right response.

    Raises:
        ValueError: ``k`` is out of range, or there is no such table.

    >>> pass_at_k(np.array([[True, False, False, False]]), 2).tolist()
    [0.5]
    """
    correct = _table(correct, k)
    wrong = (~correct).sum(axis=1)
    return np.asarray(1 - special.comb(wrong, k) / special.comb(correct.shape[1], k))


def maj_at_k(correct: np.ndarray, answers: Sequence[Sequence[str]], k: int) -> np.ndarray:
    """The chance that the most frequent answer of k responses is right; ties are drawn.

    Right answers are votes for the same: they equal the reference. Wrong ones vote for their text,
    and a response without an answer does not vote; where nobody does, the problem is not solved.

    Args:
        correct: bool[N, n].
        answers: what was taken for the answer, ``""`` where there was none, [N][n].
        k: at most n.

    Returns:
        float64[N]; of each problem, the expectation over all subsets of k.

    Raises:
        ValueError: ``k`` is out of range, or the tables do not fit.

    >>> maj_at_k(np.array([[True, True, False]]), [["4", "4", "5"]], 3).tolist()
    [1.0]
    """
    correct = _table(correct, k)
    if len(answers) != len(correct) or any(len(of) != correct.shape[1] for of in answers):
        raise ValueError(f"answers must be [{len(correct)}][{correct.shape[1]}], as correct is")
    found = []
    for right, texts in zip(correct, answers, strict=True):
        wrong = Counter(text for ok, text in zip(right, texts, strict=True) if not ok)
        silent = wrong.pop("", 0)
        found.append(_majority(int(right.sum()), tuple(sorted(wrong.values())), silent, k))
    return np.array(found, np.float64)


def _table(correct: np.ndarray, k: int) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.dtype != bool or correct.ndim != 2 or not correct.size:
        raise ValueError(f"correct must be bool[N, n], got {checks.shown(correct)}")
    checks.require_counts(k=k)
    most = correct.shape[1]
    checks.require_setting(most <= MOST_SAMPLES, "n", most, f"at most {MOST_SAMPLES}")
    checks.require_setting(k <= most, "k", k, f"at most {most}, the responses to a problem")
    return correct


@functools.lru_cache(maxsize=65536)
def _majority(right: int, wrong: tuple[int, ...], silent: int, k: int) -> float:
    """Expected share of the vote's ties that is right, over subsets of k.

    Args:
        right: votes for the right answer among all.
        wrong: votes for each wrong one.
        silent: responses without a vote.
        k: size of the subsets.
    """
    total = 0.0
    for votes in range(1, min(right, k) + 1):  # for the right answer; no other has more
        rest = k - votes
        # Answers with fewer votes in all can neither win nor tie: any number of them may be drawn.
        free = silent + sum(count for count in wrong if count < votes)
        ways = np.zeros((len(wrong) + 1, rest + 1))  # [answers that tie, responses drawn]
        ways[0, 0] = 1.0
        for count in (count for count in wrong if count >= votes):
            ways = _with_answer(ways, count, votes)
        others = ways @ special.comb(free, rest - np.arange(rest + 1))
        share = (others / np.arange(1, len(wrong) + 2)).sum()
        total += float(special.comb(right, votes) * share)
    return total / float(special.comb(right + sum(wrong) + silent, k))


def _with_answer(ways: np.ndarray, count: int, votes: int) -> np.ndarray:
    """Ways to draw responses when one more answer, of ``count``, gets at most ``votes``."""
    size = ways.shape[1]
    new = np.zeros_like(ways)
    for drawn in range(min(votes, size)):  # fewer: it does not tie
        new[:, drawn:] += special.comb(count, drawn) * ways[:, : size - drawn]
    if votes < size:
        new[1:, votes:] += special.comb(count, votes) * ways[:-1, : size - votes]
    return new


def interval(values: np.ndarray, samples: int, level: float = 0.95) -> tuple[float, float]:
    """A confidence interval of a mean of chances over problems, which are the clusters.

    Korn and Graubard's (1998): Clopper and Pearson's exact interval for as many independent
    trials as have the variance that is seen between problems. It is sound for few problems, and has
    a width where all or none were solved.

    Args:
        values: float[N] in [0, 1], of each problem.
        samples: responses behind each value.
        level: of confidence.

    Returns:
        ``(low, high)``.

    Raises:
        ValueError: there is no value, or one is out of range.

    >>> [round(end, 3) for end in interval(np.zeros(30), 8)]
    [0.0, 0.116]
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"values must be float[N] in [0, 1], got {checks.shown(values)}")
    checks.require_counts(samples=samples)
    number, mean = len(values), float(values.mean())
    trials = float(number)
    if number > 1 and (variance := float(values.var(ddof=1)) / number) > 0:
        # Few problems say little about their variance: Student's quantiles are wider.
        few = stats.t.ppf((1 + level) / 2, number * samples - 1)
        few /= stats.t.ppf((1 + level) / 2, number - 1)
        trials = min(mean * (1 - mean) / variance * few**2, float(number * samples))
    right, tail = mean * trials, (1 - level) / 2
    low = stats.beta.ppf(tail, right, trials - right + 1) if right > 0 else 0.0
    high = stats.beta.ppf(1 - tail, right + 1, trials - right) if right < trials else 1.0
    return float(low), float(high)


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and ``most`` itself.

    >>> powers_of_two(12)
    (1, 2, 4, 8, 12)
    """
    checks.require_counts(most=most)
    return tuple(sorted({2**i for i in range(int(math.log2(most)) + 1)} | {most}))
