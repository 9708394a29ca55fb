"""Claim: on a TPU the filter pads nothing, and stacked layouts cost sixty times the bytes.

    JAX_PLATFORMS=cpu python benchmarks/tpu_filter.py --topology v5e:2x2
    JAX_PLATFORMS=cpu python benchmarks/tpu_filter.py --topology v5p:2x2x1

Compiles the real step ahead of time with the TPU compiler (package `libtpu`; no TPU is needed) and
reads bytes from its cost model: per prompt, for the update and for the selection, against the
fewest bytes of an exact step (update: 13 words read and 3 written; selection: 1 word read). At
1e6 prompts and fewer the model counts traffic inside the chip's own memory too. Beside the separate
lanes of this library, the same update over [K, N] and [K, K, N] arrays, whose rows are
gathered and scattered as windows, and over an array of structures, [N, K] and [N, K, K]. What is
not claimed: the compiler writes intermediate lanes and reads the counts again for each lane of the
result, so an update moves three times the fewest bytes (`tpu_kernel.py` shows what a kernel would
save). And the model counts a gather of 257 rows as all of its lane, and a lane that is first
copied into the chip's own memory three times: of a selection's bytes 5 a prompt come from the
main memory, the score and whether the row is in use.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")  # v5p-8 for a v5p
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from common import save
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import dpsjax
from dpsjax import hmm

UPDATE_BYTES, SELECT_BYTES = 16 * 4, 4


@dataclass
class Options:
    """The chip and the pool."""

    topology: str = "v5e:2x2"
    prompts: float = 1e7
    batch: int = 256
    out: Path = Path("runs/benchmarks")


def stacked_update(params, axis):
    """The update over [K, N], [K, K, N] (axis -1) or [N, K], [N, K, K] (axis 0)."""

    def update(posterior, excess, last, step, index, state):
        def rows(leaf):
            return jnp.moveaxis(leaf, axis, -1)

        take = (Ellipsis, index) if axis == -1 else (index,)
        kept = params.decay * params.decay ** (step - last[index]).astype(jnp.float32)
        one_hot = jax.nn.one_hot(state, 3, axis=0, dtype=jnp.float32)
        old, now = rows(excess[take]), rows(posterior[take])
        alpha = params.alpha[:, :, None] + kept / params.decay * old
        joint = one_hot[:, None] * alpha / alpha.sum(0) * now[None]
        renewed = kept * old + joint / joint.sum((0, 1))
        excess = excess.at[take].set(jnp.moveaxis(renewed, -1, axis))
        last = last.at[index].set(step + 1)
        weight = params.decay ** (step - last).astype(jnp.float32)
        alpha = params.alpha[:, :, None] + weight * rows(excess)
        ahead = (alpha * (rows(posterior) / alpha.sum(0))[None]).sum(1)
        posterior = jnp.moveaxis(ahead, -1, axis).at[take].set(jnp.moveaxis(one_hot, -1, axis))
        return posterior, excess, last, step + 1

    return update


def main(options: Options) -> None:
    size, batch = int(options.prompts), options.batch
    topology = topologies.get_topology_desc(topology_name=options.topology, platform="tpu")
    place = SingleDeviceSharding(topology.devices[0])

    def shapes(tree):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
        )

    params = hmm.params(decay=0.7)
    selector = dpsjax.selectors.dps(decay=0.7)
    rows = shapes(jax.ShapeDtypeStruct((batch,), jnp.int32))
    key = shapes(jax.eval_shape(lambda: jax.random.key(0)))
    belief = shapes(jax.eval_shape(lambda: hmm.init(params, size)))
    state = shapes(jax.eval_shape(lambda: selector.init(size)))

    def stacked(axis):
        wide = (3, size) if axis == -1 else (size, 3)
        square = (3, 3, size) if axis == -1 else (size, 3, 3)
        leaves = [(wide, jnp.float32), (square, jnp.float32), ((size,), jnp.int32), ((), jnp.int32)]
        arrays = [shapes(jax.ShapeDtypeStruct(*leaf)) for leaf in leaves]
        update = jax.jit(stacked_update(params, axis), donate_argnums=(0, 1, 2))
        return update.lower(*arrays, rows, rows)

    programs = {
        "update, lanes": (
            jax.jit(lambda b, i, s: hmm.update(params, b, i, s), donate_argnums=0).lower(
                belief, rows, rows
            ),
            UPDATE_BYTES,
        ),
        "update, [K, N] and [K, K, N]": (stacked(-1), UPDATE_BYTES),
        "update, [N, K] and [N, K, K]": (stacked(0), UPDATE_BYTES),
        "select, lanes": (
            jax.jit(lambda k, s: dpsjax.select(selector, k, s, batch)[0]).lower(key, state),
            SELECT_BYTES,
        ),
    }
    record = {"topology": options.topology, "prompts": size, "programs": {}}
    for name, (lowered, fewest) in programs.items():
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            record["programs"][name] = {"error": str(error).splitlines()[0]}
            print(f"{name:32} does not compile: {str(error)[:150]}", flush=True)
            continue
        memory = compiled.memory_analysis()
        row = {
            "bytes_accessed": compiled.cost_analysis()["bytes accessed"] / size,
            "fewest_bytes": fewest,
            "argument_bytes": memory.argument_size_in_bytes / size,
            "temporary_bytes": memory.temp_size_in_bytes / size,
        }
        record["programs"][name] = row
        print(
            f"{name:32} {row['bytes_accessed']:10.1f} bytes a prompt (fewest {fewest})"
            f"  held {row['argument_bytes']:7.1f}  temporary {row['temporary_bytes']:8.1f}",
            flush=True,
        )
    save(f"tpu_filter_{options.topology.split(':')[0]}", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
