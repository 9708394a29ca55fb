"""The update on a mesh of devices: one ``jax.jit`` with shardings and donated buffers.

Three mesh axes: ``data`` and ``fsdp`` divide the prompts of a batch, ``fsdp`` and ``tensor`` divide
the parameters (and the optimizer state with them), and all three together divide the prompts of
the pool, whose belief is the largest array of a selector.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from dpsjax import checks
from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.update import UpdateFunction
from dpsjax.policy.sharding import MESH_AXES
from dpsjax.types import PyTree

BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None
) -> Mesh:
    """A mesh with the axes ``data``, ``fsdp`` and ``tensor``.

    Args:
        data: Replicas of the parameters; each sees another part of a batch.
        fsdp: Ways the parameters are divided by width; each sees another part of a batch.
        tensor: Ways the parameters are divided by heads, MLP and vocabulary.
        devices: The devices, ``data * fsdp * tensor`` of them; default all of every process.

    Returns:
        The mesh. Its axes are automatic: the compiler places what is not constrained.

    Raises:
        TypeError: An axis is no integer, or ``devices`` no sequence.
        ValueError: The product of the axes is not the number of devices, or several TPU slices do
            not divide ``data``.
    """
    checks.require_counts(data=data, fsdp=fsdp, tensor=tensor)
    shape = (data, fsdp, tensor)
    devices = jax.devices() if devices is None else devices
    checks.require_type((Sequence, np.ndarray), "a sequence of devices", devices=devices)
    if int(np.prod(shape)) != len(devices):
        raise ValueError(
            f"data={data}, fsdp={fsdp}, tensor={tensor} is {int(np.prod(shape))} devices, and "
            f"there are {len(devices)}: choose three factors of that number"
        )
    return Mesh(_arranged(shape, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def _arranged(shape: tuple[int, int, int], devices: Sequence) -> np.ndarray:
    """Devices in the order of the mesh: neighbours on the torus where an axis needs them.

    ``jax.make_mesh`` refuses several slices, and most meshes that split a side of a torus, such as
    ``tensor=4`` on 8x8 chips of v6e.
    """
    slices: dict[int, list] = {}
    for device in devices:
        # GPUs of different hosts have different slices too, but no torus to be arranged on.
        number = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(number, []).append(device)
    data, fsdp, tensor = shape
    if data % len(slices) != 0:
        raise ValueError(
            f"data={data} must be a multiple of the {len(slices)} slices: what the other axes "
            "exchange is too much for the network between slices"
        )
    part = (data // len(slices), fsdp, tensor)
    return np.concatenate(
        [
            mesh_utils.create_device_mesh(part, group, allow_split_physical_axes=True)
            for _, group in sorted(slices.items())
        ]
    )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of every field of a batch: its prompts over ``data`` and ``fsdp``."""
    _require_mesh(mesh)
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    _require_mesh(mesh)
    return NamedSharding(mesh, PartitionSpec())


def _require_mesh(mesh) -> None:
    checks.require_type((Mesh, AbstractMesh), "a mesh, as of make_mesh", mesh=mesh)


def optimizer_shardings(
    optimizer: optax.GradientTransformation,
    params: PyTree,
    param_shardings: PyTree,
    mesh: Mesh | AbstractMesh,
) -> PyTree:
    """Shard an optimizer's moments as the parameters they belong to; replicate its counters.

    Args:
        optimizer: The optax transformation.
        params: Parameters, arrays or ``ShapeDtypeStruct``.
        param_shardings: A sharding for each of them, in the same structure.
        mesh: The mesh.

    Returns:
        Pytree of ``NamedSharding`` in the structure of ``optimizer.init(params)``.
    """
    _require_mesh(mesh)
    checks.require_type(optax.GradientTransformation, "an optax optimizer", optimizer=optimizer)
    state = jax.eval_shape(optimizer.init, params)
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        state,
        param_shardings,
        transform_non_params=lambda _: replicated(mesh),
    )


def jit_update(
    update: UpdateFunction,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    param_shardings: PyTree,
    mesh: Mesh | AbstractMesh,
    *,
    with_reference: bool = False,
) -> Callable:
    """Compile an update for a mesh: inputs are placed, parameters and optimizer state donated.

    Args:
        update: From :func:`dpsjax.grpo.update.make_update`.
        optimizer: The one that the update uses.
        params: Parameters, arrays or ``ShapeDtypeStruct``; only their shapes are read.
        param_shardings: A sharding for each of them, for example
            ``dpsjax.policy.sharding.shardings(params, mesh)``.
        mesh: The mesh.
        with_reference: Whether reference parameters will be passed.

    Returns:
        The jitted ``(params, opt_state, batch, reference_params) -> (params, opt_state,
        metrics)``. ``params`` and ``opt_state`` must not be used afterwards; pass a copy as
        ``reference_params``, never the same buffers.
    """
    checks.require_callable(update=update)
    moments = optimizer_shardings(optimizer, params, param_shardings, mesh)
    reference = param_shardings if with_reference else None

    def placed(params, opt_state, batch: RolloutBatch, reference_params=None):
        rows, ways = batch.index.shape[0], mesh.shape["data"] * mesh.shape["fsdp"]
        if rows % ways != 0:
            raise ValueError(
                f"a batch of {rows} prompts does not divide over data x fsdp = {ways} devices: "
                "pad it to dpsjax.grpo.batch_rows, with rows of index -1"
            )
        # What is divided, mini-batches and activations, is divided over this mesh.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return update(params, opt_state, batch, reference_params)

    return jax.jit(
        placed,
        in_shardings=(param_shardings, moments, batch_sharding(mesh), reference),
        out_shardings=(param_shardings, moments, replicated(mesh)),
        donate_argnums=(0, 1),
    )
