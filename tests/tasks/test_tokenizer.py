"""Round trips, and decoding of anything a policy may sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsjax.tasks.base import Tokenizer
from dpsjax.tasks.tokenizer import UNKNOWN, CharTokenizer

tokenizer = CharTokenizer("0123456789+-*/() =:")


def test_follows_the_protocol():
    assert isinstance(tokenizer, Tokenizer)
    assert len({tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id}) == 3
    assert tokenizer.vocab_size == 22


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet=tokenizer.alphabet))
def test_round_trip(text):
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert all(tokenizer.bos_id < index < tokenizer.vocab_size for index in ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.pad_id] * 3 + ids + [tokenizer.eos_id] + ids) == text


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-(2**40), 2**40) | st.integers(-1, 25)))
def test_decode_never_raises(ids):
    text = tokenizer.decode(ids)
    assert len(text) <= len(ids)
    assert set(text) <= set(tokenizer.alphabet) | {UNKNOWN}


def test_decodes_arrays():
    ids = np.asarray(tokenizer.encode("3*7"), np.int32)
    assert tokenizer.decode(ids) == "3*7"


def test_special_ids_inside_a_text_stay_visible():
    three, five = tokenizer.encode("35")
    assert tokenizer.decode([three, tokenizer.pad_id, five]) == f"3{UNKNOWN}5"
    assert tokenizer.decode([three, tokenizer.bos_id, five]) == f"3{UNKNOWN}5"
    assert tokenizer.decode([99, three]) == f"{UNKNOWN}3"


def test_unknown_character_is_named():
    with pytest.raises(ValueError, match=r"'x' at position 1.*alphabet"):
        tokenizer.encode("1x2")


@pytest.mark.parametrize("alphabet", ["", "aba"])
def test_bad_alphabet(alphabet):
    with pytest.raises(ValueError, match="alphabet"):
        CharTokenizer(alphabet)
