"""Where the other trainers are: environments of their own, made by setup.sh beside this file."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(os.environ.get("DPSJAX_PEERS", Path.home() / ".cache" / "dpsjax-peers"))


def run(side, *words, processes=1):
    """Run one of the programs here with a trainer's own Python; what it printed last, as JSON."""
    python = HERE / side / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{side} is not installed: tests/adapters/setup.sh {side}")
    keep = ("PATH", "HOME", "TMPDIR", "JAX_COMPILATION_CACHE_DIR")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"}
    program = str(ROOT / "tests" / "adapters" / f"run_{side}.py")
    start = [str(python)]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    done = subprocess.run(
        [*start, program, *map(str, words)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1])
