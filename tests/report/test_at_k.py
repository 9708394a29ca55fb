"""Held to enumeration of every subset, and the interval to what it covers."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from dpsjax.report.at_k import interval, maj_at_k, pass_at_k


def enumerated(right, texts, k):
    """(pass@k, maj@k) in exact fractions, of every subset."""
    passed = majority = Fraction(0)
    subsets = list(itertools.combinations(range(len(right)), k))
    for subset in subsets:
        passed += any(right[i] for i in subset)
        votes = Counter(
            "right" if right[i] else "text:" + texts[i] for i in subset if right[i] or texts[i]
        )
        most = max(votes.values(), default=0)
        tied = [name for name, count in votes.items() if count == most]
        majority += Fraction("right" in tied, max(len(tied), 1))
    return passed / len(subsets), majority / len(subsets)


@pytest.mark.parametrize("seed", range(8))
def test_pass_and_majority_are_those_of_all_subsets(seed):
    draw = np.random.default_rng(seed)
    n, problems = int(draw.integers(1, 9)), 6
    answers = [
        [("", "a", "b", "c", "d")[i] for i in draw.integers(0, 5, n)] for _ in range(problems)
    ]
    correct = draw.random((problems, n)) < draw.random()  # also responses without an answer
    for k in range(1, n + 1):
        expected = [
            enumerated(right, texts, k) for right, texts in zip(correct, answers, strict=True)
        ]
        passed, majority = np.array(expected, np.float64).T
        np.testing.assert_allclose(pass_at_k(correct, k), passed, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(maj_at_k(correct, answers, k), majority, rtol=1e-12, atol=1e-12)


def test_many_responses_are_as_subsets_that_are_drawn():
    draw = np.random.default_rng(0)
    correct = draw.random((1, 200)) < 0.4
    texts = draw.integers(0, 3, (1, 200)).astype(str)
    votes = np.where(correct[0], "right", texts[0])
    won = 0.0
    for _ in range(2000):
        counts = Counter(votes[draw.permutation(200)[:16]].tolist())
        tied = [name for name, count in counts.items() if count == max(counts.values())]
        won += ("right" in tied) / len(tied)
    assert abs(maj_at_k(correct, texts.tolist(), 16)[0] - won / 2000) < 0.04
    assert pass_at_k(correct, 200)[0] == 1 and pass_at_k(correct, 1)[0] == correct.mean()
    many, of_many = np.repeat(correct, 5, axis=1), np.repeat(texts, 5, axis=1).tolist()
    assert maj_at_k(many, of_many, 1)[0] == pytest.approx(correct.mean(), rel=1e-12)
    assert maj_at_k(many, of_many, 1000)[0] == 1


@pytest.mark.parametrize(("problems", "samples", "spread"), [(30, 8, 0.5), (100, 4, 3.0)])
def test_the_interval_covers_the_truth(problems, samples, spread):
    """Problems whose chances differ: an interval that took responses as independent covers less."""
    draw = np.random.default_rng(0)
    mean, covered, naive, times = 0.3, 0, 0, 600
    for _ in range(times):
        chances = draw.beta(spread * mean, spread * (1 - mean), problems)
        values = draw.binomial(samples, chances) / samples
        low, high = interval(values, samples)
        covered += low <= mean <= high
        half = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / (problems * samples))
        naive += abs(values.mean() - mean) <= half
    assert 0.93 <= covered / times <= 0.995 and naive < covered
    assert naive / times < 0.93


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: pass_at_k(np.zeros((2, 3), bool), 4), "k=4 must be at most 3"),
        (lambda: pass_at_k(np.zeros((2, 3), bool), 0), "k=0"),
        (lambda: pass_at_k(np.zeros((2, 3)), 1), "correct must be bool"),
        (lambda: maj_at_k(np.zeros((1, 2), bool), [["a"]], 1), "answers must be"),
        (lambda: interval(np.array([1.5]), 1), "values must be"),
        (lambda: interval(np.array([]), 1), "values must be"),
    ],
)
def test_mistakes_are_named(call, named):
    with pytest.raises(ValueError, match=named.replace("[", r"\[")):
        call()
