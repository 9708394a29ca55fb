"""Array aliases and the axis letters used everywhere.

Axis letters: ``N`` prompts of the pool, ``B`` prompts of a batch, ``K`` solve states, ``G``
rollouts of one prompt, ``T`` tokens, ``P`` prompt tokens, ``V`` vocabulary, ``D`` model width.

Annotations are jaxtyping's; they cost nothing at run time and are enforced in the tests.
"""

from collections.abc import Sequence
from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt

PyTree = Any
Key = PRNGKeyArray | UInt[Array, "2"]
Rows = ArrayLike | Sequence[int]  # of integers, one for each row of a batch
Scalar = float | int | Float[Array, ""] | Int[Array, ""]

__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "Int",
    "Key",
    "PyTree",
    "Rows",
    "Scalar",
    "Shaped",
    "UInt",
]
