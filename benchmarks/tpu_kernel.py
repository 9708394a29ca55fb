"""Claim: a Pallas kernel would halve the bytes of an update on a TPU, but does not compose.

    JAX_PLATFORMS=cpu python benchmarks/tpu_kernel.py --topology v5e:2x2
    JAX_PLATFORMS=cpu TPU_ACCELERATOR_TYPE=v5p-8 \
        python benchmarks/tpu_kernel.py --topology v5p:2x2x1

The compiler makes several loops of the lanes of the next prior, each of which reads the counts
again; a kernel of one's own reads them once. Here it is, held to the library in interpret mode and
compiled ahead of time with the TPU compiler (package `libtpu`; no TPU is needed). The library does
not use it, for the rest of what this prints: it compiles neither under ``vmap``, which sweeps need,
nor under ``shard_map`` as it is, nor with sharded arrays. At 1e7 prompts the bytes that it saves
take a v5e about a millisecond.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")  # v5p-8 for a v5p
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import save
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dpsjax.belief import hmm

BLOCK = 2**13
STATES = 3


@dataclass
class Options:
    """The chip and the pool."""

    topology: str = "v5e:2x2"
    prompts: float = 1e7
    batch: int = 256
    out: Path = Path("runs/benchmarks")


def kernel(alpha, decay, step, *lanes):
    """A block: the library's own formula, on values read once."""
    values = [lane[...] for lane in lanes[: STATES * STATES + STATES + 1]]
    posterior, counts, last = values[:STATES], values[STATES:-1], values[-1]
    excess = [counts[i * STATES : (i + 1) * STATES] for i in range(STATES)]
    # Scalars are read where they are used; the logarithm of the decay is taken of a vector.
    params = SimpleNamespace(
        alpha=alpha, pi=np.zeros(STATES), decay=jnp.full(last.shape, decay[0, 0])
    )
    ahead = hmm._predict(params, posterior, excess, step[0, 0] - last)
    for out, value in zip(lanes[-STATES:], ahead, strict=True):
        out[...] = value


def advance(params: hmm.Params, belief: hmm.Belief, interpret: bool = False):
    """Lanes of the next prior, as ``hmm._advance`` returns them."""
    size = belief.last.shape[0]
    lanes = [*belief.posterior, *jax.tree.leaves(belief.excess), belief.last]
    block = pl.BlockSpec((BLOCK,), lambda i: (i,))
    scalar = pl.BlockSpec(memory_space=pltpu.SMEM)
    out = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(size, BLOCK),),
        in_specs=[scalar] * 3 + [block] * len(lanes),
        out_specs=[block] * STATES,
        out_shape=[jax.ShapeDtypeStruct((size,), jnp.float32)] * STATES,
        interpret=interpret,
    )(params.alpha, params.decay.reshape(1, 1), belief.step.reshape(1, 1), *lanes)
    return tuple(out)


def difference(params: hmm.Params, size: int = 20_001, steps: int = 30) -> float:
    """The largest difference to the library, in interpret mode, over some steps."""
    rng, belief, worst = np.random.default_rng(0), hmm.init(params, size), 0.0
    update = jax.jit(hmm.update)
    for _ in range(steps):
        index = jnp.asarray(rng.choice(size, 256, replace=False), jnp.int32)
        belief = update(params, belief, index, jnp.asarray(rng.integers(0, 3, 256), jnp.int32))
        found = advance(params, belief, interpret=True)
        for mine, theirs in zip(found, belief.prior, strict=True):
            worst = max(worst, float(jnp.abs(mine - theirs).max()))
    return worst


def bytes_accessed(name: str, mesh: jax.sharding.Mesh, lower: Callable, size: int) -> float:
    """Bytes a prompt of a program, by the compiler's cost model."""
    with jax.set_mesh(mesh):
        result = lower().compile().cost_analysis()["bytes accessed"] / size
    print(f"{name:24} {result:.1f} bytes a prompt", flush=True)
    return result


def refusal(name: str, mesh: jax.sharding.Mesh, lower: Callable, size: int) -> str:
    """Why a program is not compiled, in the words of JAX; an error if it is.

    These two are what JAX's lowering raises for a kernel that it cannot batch, or cannot divide.

    Raises:
        RuntimeError: it compiles, so the kernel can be composed, and this file's claim is wrong.
    """
    try:
        bytes_accessed(name, mesh, lower, size)
    except (ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0][:160]
        print(f"{name:24} refused: {why}", flush=True)
        return why
    raise RuntimeError(f"{name} compiles with this JAX: the kernel may earn its place now")


def main(options: Options) -> None:
    size = int(options.prompts)
    params = hmm.params(decay=0.7)
    record = {"topology": options.topology, "prompts": size, "difference": difference(params)}
    print(f"largest difference to the library, interpreted: {record['difference']:.1e}")
    devices = list(topologies.get_topology_desc(options.topology, platform="tpu").devices)
    meshes = [
        jax.make_mesh((n,), ("x",), devices=devices[:n], axis_types=(AxisType.Auto,))
        for n in (1, len(devices))
    ]
    whole, split = PartitionSpec(), PartitionSpec("x")

    def shapes(mesh, tree, spec):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec if leaf.ndim else whole)
            ),
            tree,
        )

    size -= size % len(devices)
    belief = jax.eval_shape(lambda: hmm.init(params, size))
    rows = jax.ShapeDtypeStruct((options.batch,), jnp.int32)
    decays = jax.ShapeDtypeStruct((3,), jnp.float32)

    def update(belief, index, state):
        return hmm.update(params, belief, index, state)

    def sweep(decay, belief, index, state):
        return hmm.update(params._replace(decay=decay), belief, index, state)

    def lowered(function, mesh, spec, *leading):
        args = *leading, shapes(mesh, belief, spec), *[shapes(mesh, rows, whole)] * 2
        # Wrapped anew, or the trace of the program before, without the kernel, would be used.
        return lambda: jax.jit(lambda *a: function(*a), donate_argnums=len(leading)).lower(*args)

    one, many = meshes
    specs = jax.tree.map(lambda leaf: split if leaf.ndim else whole, belief)
    sharded = jax.shard_map(update, mesh=many, in_specs=(specs, whole, whole), out_specs=specs)
    vmapped = jax.vmap(sweep, in_axes=(0, None, None, None))
    record["library"] = bytes_accessed("library", one, lowered(update, one, whole), size)
    with mock.patch.object(hmm, "_advance", advance):
        record["kernel"] = bytes_accessed("kernel", one, lowered(update, one, whole), size)
        record["refused"] = {
            name: refusal(f"kernel, {name}", mesh, program, size)
            for name, mesh, program in (
                ("vmap", one, lowered(vmapped, one, whole, shapes(one, decays, whole))),
                ("shard_map", many, lowered(sharded, many, split)),
                ("jit of shards", many, lowered(update, many, split)),
            )
        }
    save(f"tpu_kernel_{options.topology.split(':')[0]}", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
