"""Arithmetic expressions from untrusted text: a recursive-descent parser, exact arithmetic.

Grammar, with spaces, tabs and line ends allowed between tokens::

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = "-" factor | "(" sum ")" | integer
    integer = "0" | nonzero { digit }            # ASCII digits only

A unary minus belongs to the factor after it, so ``-2*3`` is ``(-2)*3`` and ``2*-3`` is -6.
There is no unary plus, no power and no implicit product. The text is never given to ``eval``;
length, nesting and the size of a number are bounded before any arithmetic is done.
"""

from fractions import Fraction
from typing import NamedTuple

from dpsjax import checks

MAX_CHARACTERS = 256
MAX_DEPTH = 32
MAX_DIGITS = 9

_DIGITS = frozenset("0123456789")
_SPACES = frozenset(" \t\r\n")


class ExpressionError(ValueError):
    """The text has no value; the message is the reason, with 0-based positions."""


class Expression(NamedTuple):
    """A parsed expression.

    Attributes:
        value: its exact value.
        numbers: its integers in reading order, without signs.
    """

    value: Fraction
    numbers: tuple[int, ...]


def evaluate(text: str) -> Expression:
    """Parse ``text`` as one expression and compute its exact value.

    Args:
        text: untrusted; the whole of it must be one expression.

    Raises:
        TypeError: ``text`` is no string.
        ExpressionError: ``"empty"``, ``"too long"``, ``"too deep at 40"``,
            ``"number too large at 2"``, ``"leading zero at 2"``, ``"malformed at 3"`` or
            ``"division by zero"``; the first that reading from the left meets.

    >>> evaluate("(3 + 4) * -2 / 4")
    Expression(value=Fraction(-7, 2), numbers=(3, 4, 2, 4))
    """
    checks.require_type(str, "a string", text=text)
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError("too long")
    parser = _Parser(text)
    if not parser.peek():
        raise ExpressionError("empty")
    value = parser.sum(depth=0)
    if parser.peek():
        raise parser.error("malformed")
    return Expression(value, tuple(parser.numbers))


class _Parser:
    """A position in a text and the integers read so far."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0
        self.numbers: list[int] = []

    def error(self, reason: str) -> ExpressionError:
        return ExpressionError(f"{reason} at {self.position}")

    def peek(self) -> str:
        """The next character that is not a space, ``""`` at the end."""
        while self.position < len(self.text):
            character = self.text[self.position]
            if character not in _SPACES:
                return character
            self.position += 1
        return ""

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while (symbol := self.peek()) in ("+", "-"):
            self.position += 1
            term = self.product(depth)
            value = value + term if symbol == "+" else value - term
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while (symbol := self.peek()) in ("*", "/"):
            self.position += 1
            term = self.factor(depth)
            if symbol == "*":
                value = value * term
            elif term == 0:
                raise ExpressionError("division by zero")
            else:
                value = value / term
        return value

    def factor(self, depth: int) -> Fraction:
        symbol = self.peek()
        if symbol in _DIGITS:
            return self.integer()
        if symbol not in ("-", "("):
            raise self.error("malformed")
        if depth >= MAX_DEPTH:
            raise self.error("too deep")
        self.position += 1
        if symbol == "-":
            return -self.factor(depth + 1)
        value = self.sum(depth + 1)
        if self.peek() != ")":
            raise self.error("malformed")
        self.position += 1
        return value

    def integer(self) -> Fraction:
        start = end = self.position
        while end < len(self.text) and self.text[end] in _DIGITS:
            end += 1
        digits = self.text[start:end]
        if len(digits) > MAX_DIGITS:
            raise self.error("number too large")
        if digits[0] == "0" and digits != "0":
            raise self.error("leading zero")
        self.position = end
        self.numbers.append(int(digits))
        return Fraction(self.numbers[-1])
