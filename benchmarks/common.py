"""Shared by the benchmarks: timing, the memcpy yardstick, memory, and a JSON record."""

import json
import os
import platform
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np


def seconds(call, repeats: int = 9, warm: int = 2) -> dict:
    """Median and minimum wall seconds of ``call()``, results awaited, after warm-up calls."""
    for _ in range(warm):
        jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return {"median": float(np.median(times)), "min": float(min(times)), "repeats": repeats}


def memcpy_seconds(num_bytes_moved: int, threads: int = os.cpu_count() or 1) -> dict:
    """Time to move that many bytes by plain copies: half of them are read, half written."""
    words = max(num_bytes_moved // 8, threads)
    source, target = np.ones(words, np.float32), np.zeros(words, np.float32)
    bounds = np.linspace(0, words, threads + 1).astype(int)

    def part(i):
        np.copyto(target[bounds[i] : bounds[i + 1]], source[bounds[i] : bounds[i + 1]])

    with ThreadPoolExecutor(threads) as pool:
        return seconds(lambda: list(pool.map(part, range(threads))))


def resident_bytes() -> int:
    """Memory in use by this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """The most memory that this process ever used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def save(name: str, record: dict, out: Path) -> None:
    """Write the record with the versions that made it."""
    record["made_by"] = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
