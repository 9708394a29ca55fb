"""Partition rules as data: parameter names end in axis letters, a table maps letters to a mesh.

``query_dnh`` has axes ``d, n, h``; parameters below ``layers`` have one more axis in front, ``l``.
Letters: ``v`` vocabulary, ``d`` width, ``f`` MLP width, ``n`` query heads, ``m`` key/value heads,
``h`` head size, ``l`` layers; of a vision tower ``a``, ``w`` and ``o`` for what its projection
takes, holds and gives, and ``c``, ``t``, ``p``, ``q`` for parts that stay whole; of activations
``b`` prompts, ``g`` rollouts, ``s``/``t`` tokens.
"""

import math
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dpsjax import checks
from dpsjax.types import Array, PyTree

MESH_AXES = ("data", "fsdp", "tensor")

PARAMETER_AXES: Mapping[str, str | None] = {
    "l": None,
    "v": "tensor",
    "d": "fsdp",
    "f": "tensor",
    "n": "tensor",
    "m": "tensor",
    "h": None,
    "a": "fsdp",
    "w": "tensor",
    **dict.fromkeys("octpq"),
}
ACTIVATION_AXES: Mapping[str, str | tuple[str, ...] | None] = {
    "b": ("data", "fsdp"),
    "g": None,
    "s": None,
    "t": None,
    "d": None,
    "h": None,
    "f": "tensor",
    "n": "tensor",
    "m": "tensor",
    "v": "tensor",
}

__all__ = [
    "ACTIVATION_AXES",
    "MESH_AXES",
    "PARAMETER_AXES",
    "axis_letters",
    "batch_ways",
    "constrain",
    "gathered",
    "is_matrix",
    "parameter_path",
    "partition_spec",
    "shardings",
    "tensor_ways",
]


def axis_letters(path: tuple[str, ...]) -> str:
    """Axis letters of a parameter from its path.

    >>> axis_letters(("layers", "query_dnh"))
    'ldnh'
    >>> axis_letters(("embed_vd",))
    'vd'
    """
    letters = path[-1].rsplit("_", 1)[-1]
    return "l" + letters if "layers" in path[:-1] else letters


def parameter_path(path: tuple) -> tuple[str, ...]:
    """Dictionary keys of a pytree path; the last part, a Param's own attribute, is dropped."""
    return tuple(str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey))


def is_matrix(path: tuple) -> bool:
    """Whether a parameter of this pytree path is multiplied with; norms and biases are not."""
    return not any(part in ("norm", "bias") for part in parameter_path(path)[-1].split("_"))


def partition_spec(
    letters: str,
    shape: tuple[int, ...],
    mesh_shape: Mapping[str, int],
    rules: Mapping[str, str | tuple[str, ...] | None] = PARAMETER_AXES,
) -> PartitionSpec:
    """Where each axis of an array lives.

    An axis that its mesh axes do not divide is replicated (2 key/value heads on ``tensor=4``),
    and so is one whose mesh axis the mesh does not have.

    >>> tuple(partition_spec("dnh", (96, 4, 24), {"fsdp": 2, "tensor": 8}))
    ('fsdp', None, None)
    """
    entries = []
    for letter, size in zip(letters, shape, strict=True):
        axes = rules[letter]
        axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
        present = tuple(axis for axis in axes if mesh_shape.get(axis, 1) > 1)
        ways = 1
        for axis in present:
            ways *= mesh_shape[axis]
        keep = present if present and size % ways == 0 else ()
        entries.append(keep[0] if len(keep) == 1 else (keep or None))
    return PartitionSpec(*entries)


def shardings(params: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """A ``NamedSharding`` for every parameter.

    Args:
        params: state of a ``Policy`` (arrays or ``ShapeDtypeStruct``), ``nnx.split(policy)[1]``, or
            any pytree whose innermost dictionary keys are parameter names (an optimizer's moments).
        mesh: with any of the axes ``data``, ``fsdp`` and ``tensor``.

    Returns:
        Pytree of the same structure.

    Raises:
        TypeError: ``params`` holds what is no array, or ``mesh`` is something else.
    """
    checks.require_type((Mesh, AbstractMesh), "a mesh", mesh=mesh)

    def one(path: tuple, leaf: Array | jax.ShapeDtypeStruct) -> NamedSharding:
        if not hasattr(leaf, "ndim"):
            raise TypeError(f"params holds {leaf!r}: it must be a pytree of arrays")
        names = parameter_path(path)
        letters = axis_letters(names) if names else ""
        if len(letters) != leaf.ndim or any(letter not in PARAMETER_AXES for letter in letters):
            letters, spec = "", PartitionSpec()  # a counter or another scalar of an optimizer
        else:
            spec = partition_spec(letters, leaf.shape, mesh.shape)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, params)


def batch_ways() -> int:
    """Ways that the mesh in context (``jax.set_mesh``) divides a batch; 1 without one."""
    shape = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(shape.get(axis, 1) for axis in ACTIVATION_AXES["b"] or ())


def tensor_ways() -> int:
    """Ways that the mesh in context divides the vocabulary; 1 without one."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("tensor", 1)


def gathered(params: PyTree) -> PyTree:
    """Parameters held whole but for the division by ``tensor``, on the mesh in context.

    A decoding step uses each weight for a few tokens only: to gather it for every step costs far
    more time than to keep it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return params
    rules = {**PARAMETER_AXES, "d": None}

    def one(path: tuple, leaf: Array) -> Array:
        letters = axis_letters(parameter_path(path))
        spec = partition_spec(letters, leaf.shape, dict(mesh.shape), rules)
        return jax.lax.with_sharding_constraint(leaf, spec)

    return jax.tree_util.tree_map_with_path(one, params)


def constrain(x: Array, letters: str) -> Array:
    """Pin an activation to the mesh in context (``jax.set_mesh``); the identity without one."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = partition_spec(letters, x.shape, dict(mesh.shape), ACTIVATION_AXES)
    return jax.lax.with_sharding_constraint(x, spec)
