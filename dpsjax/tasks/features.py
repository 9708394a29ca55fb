"""What a prompt's text says of its difficulty: plain counts, for selectors that share a model."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from dpsjax import checks
from dpsjax.tasks.base import Problem

BUCKETS = 64  # that words are hashed into, and the most characters that are counted one by one


def prompt_features(problems: Sequence[Problem]) -> np.ndarray:
    """How often each prompt has each character, or each word, and how long it is.

    Characters where the pool has few different ones (made-up languages, arithmetic); else words,
    hashed into 64 buckets. Columns have mean 0 and deviation 1 over the pool; those that are the
    same for all prompts are left out.

    Args:
        problems: the pool.

    Returns:
        float32[N, F].

    Raises:
        ValueError: there are no problems.

    >>> prompt_features([Problem("1+1", None, ""), Problem("1+2", None, "")]).shape
    (2, 2)
    """
    checks.require_items(Problem, "a Problem", problems=problems)
    if not problems:
        raise ValueError("problems must hold at least one")
    texts = [problem.text() for problem in problems]
    letters = sorted(set().union(*texts))
    if len(letters) <= BUCKETS:
        place = {letter: column for column, letter in enumerate(letters)}
        rows = [[place[letter] for letter in text] for text in texts]
    else:
        words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]
        rows = [[zlib.crc32(word.encode()) % BUCKETS for word in found] for found in words]
    counts = np.zeros((len(rows), BUCKETS + 1))
    for row, columns in enumerate(rows):
        np.add.at(counts[row], columns, 1)
        counts[row, BUCKETS] = np.log1p(len(columns))
    spread = counts.std(axis=0)
    kept = spread > 1e-9
    return ((counts[:, kept] - counts[:, kept].mean(axis=0)) / spread[kept]).astype(np.float32)
