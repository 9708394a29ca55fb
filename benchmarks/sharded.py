"""Claim: over the prompt axis, shards choose what one device chooses, for one small all-gather.

    python benchmarks/sharded.py --prompts 1e6

Runs the same rounds on one device, on eight forced CPU devices and in two processes of four
devices joined by `jax.distributed`, and compares every chosen batch bit for bit. Then it lists the
collectives in the compiled selection and observation, with the bytes of each.
"""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

SHARDS = 8


@dataclass
class Options:
    """Pool and rounds; the rest is set by the parent process."""

    prompts: float = 1e6
    batch: int = 256
    rounds: int = 20
    out: Path = Path("runs/benchmarks")
    role: str = ""
    """Empty for the parent; else one, shards or process-I."""
    port: int = 0


def collectives(text: str) -> list[dict]:
    """Collective operations of a compiled program, with the bytes of their results."""
    pattern = r"= (\(?[^=]*?)(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\("
    sizes = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "s8": 1, "u8": 1, "bf16": 2}
    found = []
    for result, kind in re.findall(pattern, text):
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", result)
        total = sum(
            sizes[t] * int(np.prod([int(d) for d in dims.split(",") if d])) for t, dims in shapes
        )
        found.append({"kind": kind, "bytes": total})
    return found


def child(options: Options) -> None:
    """Choose and observe for some rounds; write what was chosen and what was communicated."""
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    if options.role.startswith("process"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        process = int(options.role[-1])
        jax.distributed.initialize(f"127.0.0.1:{options.port}", 2, process)
    import dpsjax

    size, batch = int(options.prompts), options.batch
    count = 1 if options.role == "one" else SHARDS
    mesh = jax.make_mesh((count,), ("pool",), devices=jax.devices()[:count])
    selector = dpsjax.selectors.dps(decay=0.7)
    state = jax.eval_shape(lambda: selector.init(size))
    split = jax.tree.map(lambda leaf: P("pool") if leaf.ndim else P(), state)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), split)
    state = jax.jit(lambda: selector.init(size), out_shardings=places)()

    def select(key, state):
        return dpsjax.select(selector, key, state, batch, axis_name="pool")[0].index

    def observe(state, index, passes, trials):
        return dpsjax.observe(selector, state, index, passes, trials, axis_name="pool")[1]

    select = jax.jit(
        jax.shard_map(select, mesh=mesh, in_specs=(P(), split), out_specs=P(), check_vma=False)
    )
    observe = jax.jit(
        jax.shard_map(
            observe, mesh=mesh, in_specs=(split, P(), P(), P()), out_specs=split, check_vma=False
        ),
        donate_argnums=0,
    )
    whole = NamedSharding(mesh, P())

    def everywhere(value):
        return jax.make_array_from_callback(value.shape, whole, lambda i: value[i])

    rng = np.random.default_rng(0)
    trials = everywhere(np.full(batch, 8, np.int32))
    chosen = []
    for number in range(options.rounds):
        passes = everywhere(rng.integers(0, 9, batch).astype(np.int32))
        key = jax.random.key(number)
        key = jax.random.wrap_key_data(everywhere(np.asarray(jax.random.key_data(key))))
        index = select(key, state)
        state = observe(state, index, passes, trials)
        chosen.append(np.asarray(index.addressable_data(0)).tolist())
    record = {
        "chosen": chosen,
        "select": collectives(select.lower(key, state).compile().as_text()),
        "observe": collectives(observe.lower(state, index, passes, trials).compile().as_text()),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"sharded-{options.role}.json").write_text(json.dumps(record), encoding="utf-8")


def start(options: Options, role: str, devices: int, port: int = 0) -> subprocess.Popen:
    """This script again, in a role."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--role", role, "--port", str(port)]
    command += ["--prompts", str(options.prompts), "--batch", str(options.batch)]
    command += ["--rounds", str(options.rounds), "--out", str(options.out)]
    return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags})


def main(options: Options) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    groups = {
        "one device": [("one", 1, 0)],
        "8 devices": [("shards", SHARDS, 0)],
        "2 processes": [("process-0", SHARDS // 2, port), ("process-1", SHARDS // 2, port)],
    }
    for children in groups.values():
        running = [start(options, *each) for each in children]
        if any(process.wait() for process in running):
            raise SystemExit("a child failed; its message is above")

    def read(role):
        path = options.out / f"sharded-{role}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return record

    records = {role: read(role) for rows in groups.values() for role, _, _ in rows}
    first = records["one"]["chosen"]
    same = {role: record["chosen"] == first for role, record in records.items()}
    for role, record in records.items():
        moved = f"select {record['select']}  observe {record['observe']}"
        print(f"{role:10} same batches {same[role]}  {moved}")
    from common import save

    summary = {
        "prompts": int(options.prompts),
        "batch": options.batch,
        "rounds": options.rounds,
        "belief_bytes_a_shard": int(options.prompts) * 52 // SHARDS,
        "same_batches": same,
        "collectives": {r: {k: v[k] for k in ("select", "observe")} for r, v in records.items()},
    }
    save("sharded", summary, options.out)
    if not all(same.values()):
        raise SystemExit("the shards chose otherwise")


if __name__ == "__main__":
    options = tyro.cli(Options)
    child(options) if options.role else main(options)
