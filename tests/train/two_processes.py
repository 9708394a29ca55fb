"""One of two processes that continue a run of one; started by test_processes.py."""

import json
import sys
from pathlib import Path

import jax

if __name__ == "__main__":
    process, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)

    from dpsjax.train import checkpoint
    from dpsjax.train.config import MeshConfig
    from tests.train import tiny

    run, state = tiny.easy_run(tiny.config(mesh=MeshConfig(data=2)))
    good, damaged = checkpoint.last_good(folder / "checkpoints")
    assert good is not None and not damaged
    state = checkpoint.read_state(good, state, 32, 32)
    _, records = tiny.steps(run, state, count=2)
    lines = [tiny.timeless(record) for record in records]
    (folder / f"process-{process}.json").write_text(json.dumps(lines))
