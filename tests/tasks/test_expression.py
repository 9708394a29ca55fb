"""The parser against Python's own parser with exact fractions, and against hostile text."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpsjax.tasks import expression
from dpsjax.tasks.expression import ExpressionError, evaluate
from tests.oracles import arithmetic

numbers = st.integers(0, 120).map(str)


def _binary(inner):
    spaces = st.sampled_from(["", " ", "\t"])
    joined = st.tuples(inner, spaces, st.sampled_from("+-*/"), spaces, inner).map("".join)
    return joined | joined.map("({})".format) | inner.map("-{}".format)


expressions = st.recursive(numbers, _binary, max_leaves=8)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(expressions)
@example("2*-3")
@example("--3-4*-(1-2)")
@example("1/3*3")
def test_value_equals_the_oracle(text):
    try:
        value, used = arithmetic.evaluate(text)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            evaluate(text)
        return
    result = evaluate(text)
    assert result.value == value
    assert sorted(result.numbers) == used


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.text(alphabet="0123+-*/() .e_", max_size=12))
@example("1.5")
@example("1_0")
@example("2**3")
@example("7//2")
@example("1e2")
@example("00")
@example("+3")
@example("3 4")
@example("(3)(4)")
@example("()")
@example("(3")
@example("3)")
def test_accepts_only_what_the_oracle_accepts(text):
    try:
        result = evaluate(text)
    except ExpressionError:
        return
    value, used = arithmetic.evaluate(text)
    assert (result.value, sorted(result.numbers)) == (value, used)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("1+", "malformed at 2"),
        ("1++2", "malformed at 2"),
        ("(1+2", "malformed at 4"),
        ("1+2)", "malformed at 3"),
        ("3=3", "malformed at 1"),
        ("1+2 is the answer", "malformed at 4"),
        ("2**3", "malformed at 2"),
        ("1\x00", "malformed at 1"),
        ("\u0663+1", "malformed at 0"),  # Arabic-Indic digit, int() would take it
        ("\uff11", "malformed at 0"),  # full-width digit
        ("2\u00b2", "malformed at 1"),
        ("\u2212" + "1", "malformed at 0"),
        ("1\u00a0+2", "malformed at 1"),
        ("__import__('os').abort()", "malformed at 0"),
        ("03+1", "leading zero at 0"),
        ("1/0", "division by zero"),
        ("1/(2-4/2)", "division by zero"),
        ("1+" + "9" * 10, "number too large at 2"),
        ("9" * 257, "too long"),
        ("(" * 40, "too deep at 32"),
        ("-" * 40 + "1", "too deep at 32"),
        ("(" * 20 + "-" * 20 + "1", "too deep at 32"),
    ],
)
def test_refuses_with_a_reason(text, reason):
    with pytest.raises(ExpressionError) as caught:
        evaluate(text)
    assert str(caught.value) == reason


def test_limits_are_inclusive():
    assert evaluate("(" * 32 + "7" + ")" * 32).value == 7
    assert evaluate("9" * expression.MAX_DIGITS).value == 10**expression.MAX_DIGITS - 1
    full = "1" + "+1" * 127
    assert evaluate(full + " ").value == 128
    assert len(full + " ") == expression.MAX_CHARACTERS


def test_values_are_exact():
    assert evaluate("1/3+1/3+1/3").value == 1
    assert evaluate("*".join(["999999999"] * 25)).value == 999999999**25


def test_random_texts_in_the_alphabet_never_raise_anything_else():
    rng = random.Random(0)
    with_value = 0
    for _ in range(20_000):
        text = "".join(rng.choices("0123456789+-*/() ", k=rng.randint(1, 8)))
        try:
            evaluate(text)
        except ExpressionError as error:
            assert str(error)
        else:
            with_value += 1
    assert with_value > 500
