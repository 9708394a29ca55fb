"""Floating-point operations of a traced step: matrix products, as often as the loops run them."""

import math
from typing import Any

import jax

__all__ = ["matmul_flops"]


def matmul_flops(jaxpr: Any, while_trips: int = 1) -> float:
    """Operations of all matrix products in a program, over all devices.

    Counted before compilation, so that the recomputation of remat and of chunked attention is in,
    and what a compiler might save or a poor division might repeat is not.

    Args:
        jaxpr: of ``jax.make_jaxpr``, or of the ``.jaxpr`` of a traced function.
        while_trips: how often a ``while`` loop runs; a ``scan`` knows.

    Returns:
        multiplications and additions, two for each pair.

    >>> import jax.numpy as jnp
    >>> loop = lambda x: jax.lax.fori_loop(0, 5, lambda _, y: y @ x, x)
    >>> matmul_flops(jax.make_jaxpr(loop)(jnp.ones((4, 4))))
    640.0
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # a closed one holds an open one
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot(equation)
        elif name == "scan":
            total += params["length"] * matmul_flops(params["jaxpr"], while_trips)
        elif name == "while":
            total += while_trips * matmul_flops(params["body_jaxpr"], while_trips)
        elif name == "cond":
            total += max(matmul_flops(branch, while_trips) for branch in params["branches"])
        else:
            inner = jax.tree.leaves(
                list(params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
            )
            total += sum(
                matmul_flops(x, while_trips)
                for x in inner
                if hasattr(x, "eqns") or hasattr(x, "jaxpr")
            )
    return total


def _dot(equation: Any) -> float:
    (contract, _), (batch, _) = equation.params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars)
    contracted = math.prod(left[axis] for axis in contract)
    shared = math.prod(left[axis] for axis in batch)
    rows, columns = math.prod(left), math.prod(right)
    # rows / (contracted * shared) * columns / (contracted * shared) results in each batch entry
    return 2.0 * rows * columns / (contracted * shared)
