"""What a prompt's text says: counts by hand."""

import numpy as np

from dpsjax.tasks.base import Problem
from dpsjax.tasks.features import BUCKETS, prompt_features


def problems(*texts):
    return [Problem(text, None, "") for text in texts]


def test_characters_are_counted_and_standardised():
    found = prompt_features(problems("aab", "b", "abb"))  # no column for what all have alike
    a, b, length = [2, 0, 1], [1, 1, 2], np.log1p([3, 1, 3])
    expected = np.stack([(x - np.mean(x)) / np.std(x) for x in map(np.asarray, (a, b, length))], 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_words_are_hashed_where_there_are_many_letters():
    alphabet = "".join(chr(97 + i) for i in range(26)) + "".join(chr(0x3B1 + i) for i in range(50))
    texts = [f"{alphabet} find x", f"{alphabet} find find y!", f"{alphabet} x"]
    found = prompt_features(problems(*texts))
    assert found.shape[0] == 3 and found.shape[1] <= BUCKETS + 1
    assert np.array_equal(found, prompt_features(problems(*(text.upper() for text in texts))))


def test_equal_prompts_have_no_features():
    assert prompt_features(problems("same", "same")).shape == (2, 0)
