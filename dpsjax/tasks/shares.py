"""How problems are divided: which split each belongs to for ever, and how many of each kind."""

import hashlib
from collections.abc import Sequence
from typing import Literal

Split = Literal["test", "train", "warm"]

_ALL = 16


def split_of(identity: str, test: int, train: int) -> Split:
    """The split a problem belongs to, whatever the seed and the settings of a draw.

    Args:
        identity: what two equal problems share.
        test: of sixteen shares of all problems, how many are held out.
        train: how many are for training; the rest is for a supervised warm start.

    Returns:
        the split.

    >>> split_of("3 7 25=46:", test=2, train=8)
    'train'
    """
    share = hashlib.sha256(identity.encode()).digest()[0] % _ALL
    if share < test:
        return "test"
    return "train" if share < test + train else "warm"


def quotas(count: int, weights: Sequence[float | int]) -> list[int]:
    """``count`` in the proportions of the weights, as exactly as whole numbers allow.

    Args:
        count: nonnegative.
        weights: nonnegative, one positive.

    Returns:
        a number for each weight; they sum to ``count``.

    >>> quotas(10, [1, 1, 2])
    [3, 2, 5]
    """
    total = sum(weights)
    shares = [count * weight / total for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for index in by_remainder[: count - sum(counts)]:
        counts[index] += 1
    return counts
