"""A batch of prompts, against rows filled one token at a time."""

import numpy as np
import pytest

from dpsjax.policy import left_pad


class Letters:
    pad_id = 9

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]


def _by_hand(rows, size, pad):
    tokens, mask = [], []
    for row in rows:
        tokens.append([pad] * (size - len(row)) + list(row))
        mask.append([False] * (size - len(row)) + [True] * len(row))
    return tokens, mask


@pytest.mark.parametrize("size", [None, 5, 8])
def test_rows_are_filled_from_the_right(size):
    rows = [[3, 4, 5], np.array([7], np.int64), (1, 2, 3, 4, 5), [0, 2**31 - 1]]
    tokens, mask = left_pad(rows, size, pad_id=6)
    assert tokens.dtype == np.int32 and mask.dtype == bool
    wanted = _by_hand(rows, size or 5, 6)
    assert (tokens.tolist(), mask.tolist()) == wanted


def test_texts_and_ids_may_be_mixed():
    tokens, mask = left_pad(["abc", [5]], tokenizer=Letters())
    assert tokens.tolist() == [[0, 1, 2], [9, 9, 5]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
    assert left_pad([], size=3)[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["a", "abcd"], r"prompts\[1\] has 4 tokens, more than size=3: 'abcd'; raise size"),
        (["a", ""], r"prompts\[1\] is empty"),
        (["a", [1, 2**31]], r"prompts\[1\] holds 1 to 2147483648"),
        ([[1, -1]], r"prompts\[0\] holds -1 to 1"),
    ],
)
def test_what_does_not_fit_is_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        left_pad(prompts, size=3, tokenizer=Letters())


def test_texts_need_a_tokenizer():
    with pytest.raises(TypeError, match="give their tokenizer"):
        left_pad(["a"])
    with pytest.raises(TypeError, match=r"prompts\[0\] must be a text or token ids"):
        left_pad([np.array([1.5])])
