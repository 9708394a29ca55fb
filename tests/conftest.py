"""Strict settings for every test: eight CPU devices, x64, no silent promotion of any kind."""

import gc
import os
import resource
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


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Drop compiled programs between files once they fill 3 GiB: many files share one process."""
    yield
    status = Path("/proc/self/statm")
    if (
        status.exists()
        and int(status.read_text(encoding="utf-8").split()[1]) * resource.getpagesize() > 3 << 30
    ):
        jax.clear_caches()
        gc.collect()
