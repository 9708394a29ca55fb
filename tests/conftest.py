"""Strict settings for every test: eight CPU devices, x64, no silent promotion of any kind."""

import gc
import itertools
import os
import resource
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(0)


_finished = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_programs():
    """Drop compiled programs once they fill 3 GiB or half of the mappings that Linux allows.

    Many tests share one process, each program is mapped many times, and XLA does not survive a
    mapping that is refused.
    """
    yield
    if next(_finished) % 20 == 0 and _crowded():
        # Not imported here: annotations are enforced in what pytest imports after this file.
        if "dpsjax.selectors.compiled" in sys.modules:
            sys.modules["dpsjax.selectors.compiled"].program.cache_clear()
        jax.clear_caches()
        gc.collect()


def _crowded() -> bool:
    status, maps = Path("/proc/self/statm"), Path("/proc/self/maps")
    if not (status.exists() and maps.exists()):
        return False
    pages = int(status.read_text(encoding="utf-8").split()[1])
    if pages * resource.getpagesize() > 3 << 30:
        return True
    with maps.open("rb") as lines:
        return sum(1 for _ in lines) > 30_000
