"""Strict settings for every test: eight CPU devices, x64, no silent promotion of any kind.

Tests compile far more than they compute, so XLA leaves out most of its optimizations and uses its
older, quicker emitter: a third of the time. What is computed is the same by the language's rules,
and every tolerance holds in both. ``JAX_DISABLE_MOST_OPTIMIZATIONS=false`` tests the programs that
users run; CI does so for a part of the tests. Programs are kept for the processes of one session,
in a folder that goes with it, unless ``JAX_COMPILATION_CACHE_DIR`` names another.
"""

import gc
import itertools
import os
import resource
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_flags = "--xla_force_host_platform_device_count=8"
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true") == "true" and (
    tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12)  # later XLA has one alone
):
    _flags += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flags}"

_kept = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers inherit it from the first process
    _kept = tempfile.mkdtemp(prefix="dpsjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _kept
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure():
    """The process that made the folder of programs takes it away."""
    if _kept is not None:
        shutil.rmtree(_kept, ignore_errors=True)


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
