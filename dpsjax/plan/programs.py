"""The programs of a step, traced from shapes and shardings: nothing is allocated, nothing runs.

They are the stages of :func:`dpsjax.loop.build.build`, those that a run of the same settings calls.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax.loop.build import build
from dpsjax.loop.compilation import AnyMesh
from dpsjax.loop.stages import without_policy
from dpsjax.plan.flops import matmul_flops
from dpsjax.plan.job import Job
from dpsjax.types import PyTree

__all__ = ["Program", "Resident", "device_bytes", "trace"]

# In the order in which they run; the rest of the rollouts follows a screening.
STAGES = ("select", "generate", "offer", "take", "rest", "update")


class Program(NamedTuple):
    """A stage, traced.

    Attributes:
        traced: ready to be lowered, for the mesh that it was traced for.
        flops: of matrix products on one device, were the work evenly divided.
        held: bytes of its arguments on one device that stay there between the programs.
    """

    traced: jax.stages.Traced
    flops: float
    held: int


class Resident(NamedTuple):
    """Bytes on each device that stay there between the programs.

    Attributes:
        parameters: of what is trained.
        optimizer: its moments and counters.
        pool: belief about every prompt, their tokens, and the groups that wait.
        reference: parameters that an update refers to, also those below adapters.
    """

    parameters: int
    optimizer: int
    pool: int
    reference: int


def device_bytes(tree: PyTree) -> int:
    """Bytes of the shapes in ``tree`` on one device, by their shardings."""

    def one(leaf: jax.ShapeDtypeStruct) -> int:
        shape, kind = leaf.shape, leaf.dtype
        if leaf.sharding is not None:
            shape = leaf.sharding.shard_shape(shape)
        size = 8 if jnp.issubdtype(kind, jax.dtypes.prng_key) else kind.itemsize
        for side in shape:
            size *= side
        return size

    return sum(one(leaf) for leaf in jax.tree.leaves(tree))


def trace(job: Job, mesh: AnyMesh | None = None) -> tuple[dict[str, Program], Resident]:
    """Trace the stages of a step.

    Args:
        job: the step on its mesh.
        mesh: the devices, of the job's axes; None for those of no topology in particular.

    Returns:
        ``(programs, residents)``; programs by name, in the order in which they run.
    """
    mesh = job.axes.mesh() if mesh is None else mesh
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        stages = build(job.spec, mesh)
        stays, held = _held(stages.shapes, adapters=stages.merge is not None)
        found = {}
        for name in STAGES:
            if getattr(stages, name) is None:
                continue
            traced = getattr(stages, name).trace(*stages.shapes[name])
            loops = job.response_len if name in ("generate", "rest") else 1
            flops = matmul_flops(traced.jaxpr, loops) / job.axes.devices
            found[name] = Program(traced, flops, held[name])
    return found, stays


def _held(shapes, adapters: bool) -> tuple[Resident, dict[str, int]]:
    """What stays on a device, exactly, and what of it each stage is given."""
    state, _, _, reference = shapes["update"]
    ledger, pool = without_policy(state), shapes["select"][3]
    # Between the steps; merged adapters are there for the rollouts alone.
    policy = 0 if adapters else device_bytes(state.params)
    stays = Resident(
        parameters=device_bytes(state.params),
        optimizer=device_bytes(state.opt_state),
        pool=device_bytes((ledger, pool)),
        reference=device_bytes(reference),
    )
    return stays, {
        "select": device_bytes((state.selector, pool)),
        "generate": policy,
        "offer": device_bytes(ledger),
        "take": device_bytes(ledger),
        "rest": policy,
        "update": device_bytes((state, reference)),
    }
