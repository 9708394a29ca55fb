"""Slow truth about arithmetic expressions and Countdown; imports nothing from the package."""

import ast
import itertools
import operator
from fractions import Fraction

OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(text):
    """(value, sorted integers) by Python's own parser; raises SyntaxError or ZeroDivisionError."""
    numbers = []

    def value_of(node):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value_of(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            left, right = value_of(node.left), value_of(node.right)
            return OPERATIONS[type(node.op)](left, right)
        raise SyntaxError(type(node).__name__)

    value = value_of(ast.parse(text.strip(), mode="eval").body)
    return value, sorted(numbers)


def reachable(numbers):
    """Every value of every expression that uses all of ``numbers`` once."""
    if len(numbers) == 1:
        return {Fraction(numbers[0])}
    values = set()
    rest = range(1, len(numbers))
    for size in range(len(numbers) - 1):
        for with_first in itertools.combinations(rest, size):
            left = [numbers[0], *(numbers[i] for i in with_first)]
            right = [numbers[i] for i in rest if i not in with_first]
            for a, b in itertools.product(reachable(left), reachable(right)):
                values |= {a + b, a - b, b - a, a * b}
                values |= {a / b} if b else set()
                values |= {b / a} if a else set()
    return values
