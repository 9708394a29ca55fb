"""Random arithmetic expressions, written in one canonical form.

Canonical: sums and products are flattened (``a-(b-c)`` becomes ``a+c-b``, ``a/(b/c)`` becomes
``a*c/b``), terms that are added or multiplied come first, and the larger come before the
smaller. There are no parentheses except around a sum inside a product, and no spaces. One
writing per expression keeps what a supervised policy has to learn small.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from dpsjax import checks


class Tree(NamedTuple):
    """A positive integer and how it was made; sums inside sums are already flattened.

    Attributes:
        value: its value.
        symbols: ``"+-"`` for a sum, ``"*/"`` for a product, ``""`` for a given number.
        plain: terms joined by the first symbol.
        inverse: terms joined by the second.
    """

    value: int
    symbols: str
    plain: tuple["Tree", ...]
    inverse: tuple["Tree", ...]


def random_tree(rng: random.Random, numbers: Sequence[int]) -> Tree:
    """Combine all ``numbers`` with random operations in a random order.

    Every intermediate value is a positive integer; where the drawn operation does not allow
    that, addition takes its place.

    Args:
        rng: source of randomness.
        numbers: at least one positive integer.

    Raises:
        TypeError: ``rng`` is no ``random.Random``, or ``numbers`` no integers.
        ValueError: a number is not positive, or there is none.

    >>> tree = random_tree(random.Random(13), [3, 25, 7])
    >>> tree.value, write(tree)
    (46, '25+7*3')
    """
    checks.require_type(random.Random, "a random.Random", rng=rng)
    checks.require_items(int, "a positive integer", numbers=numbers)
    if not numbers or min(numbers) < 1:
        raise ValueError(f"numbers={numbers!r} must be positive, and at least one")
    nodes = [Tree(number, "", (), ()) for number in numbers]
    while len(nodes) > 1:
        # random() is several times faster than randrange, and thousands of trees are drawn.
        left = nodes.pop(int(rng.random() * len(nodes)))
        right = nodes.pop(int(rng.random() * len(nodes)))
        nodes.append(_combine("+-*/"[int(rng.random() * 4)], left, right))
    return nodes[0]


def write(tree: Tree) -> str:
    """The canonical text of ``tree``; TypeError if it is none."""
    checks.require_type(Tree, "of random_tree", tree=tree)
    if not tree.symbols:
        return str(tree.value)
    plain, inverse = (
        [text for _, text in sorted((-term.value, _wrapped(term, tree.symbols)) for term in terms)]
        for terms in (tree.plain, tree.inverse)
    )
    return tree.symbols[0].join(plain) + "".join(tree.symbols[1] + text for text in inverse)


def _combine(operation: str, left: Tree, right: Tree) -> Tree:
    if left.value < right.value:
        left, right = right, left
    a, b = left.value, right.value
    if operation == "*":
        value, symbols = a * b, "*/"
    elif operation == "/" and a % b == 0:
        value, symbols = a // b, "*/"
    elif operation == "-" and a > b:
        value, symbols = a - b, "+-"
    else:
        operation, value, symbols = "+", a + b, "+-"
    plain, inverse = _terms(left, symbols)
    more, less = _terms(right, symbols)
    if operation in "-/":
        more, less = less, more
    return Tree(value, symbols, plain + more, inverse + less)


def _terms(node: Tree, symbols: str) -> tuple[tuple[Tree, ...], tuple[Tree, ...]]:
    """The terms of ``node`` inside a sum or product: its own ones, or itself."""
    return (node.plain, node.inverse) if node.symbols == symbols else ((node,), ())


def _wrapped(term: Tree, symbols: str) -> str:
    return f"({write(term)})" if symbols == "*/" and term.symbols == "+-" else write(term)
