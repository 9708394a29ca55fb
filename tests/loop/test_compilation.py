"""What a run tells the compiler, and what becomes of the compiler's memory."""

import ctypes
import platform
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from dpsjax.grpo.mesh import make_mesh
from dpsjax.loop.compilation import _is_known, compiler_options, return_freed_memory

ROOT = Path(__file__).parents[2]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def test_the_compiler_of_a_cpu_knows_the_options():
    options = compiler_options(make_mesh(1, 1, 1, jax.devices()[:1]))
    assert options is not None
    double = jax.jit(lambda x: x + x, compiler_options=options)
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_an_option_that_the_compiler_does_not_know_is_left_out():
    assert _is_known("xla_backend_optimization_level", 1)
    assert not _is_known("xla_option_of_another_time", 1)


def test_other_compilers_keep_their_defaults():
    chips = Mock(spec=Mesh, devices=np.array([SimpleNamespace(platform="tpu")]))
    assert compiler_options(chips) is None


def free_and_compile():
    """In a process of its own: how far a heap of gigabytes shrinks depends on what lies in it."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    size = 64 << 10
    blocks = [libc.malloc(size) for _ in range(1600)]  # 100 MB
    for block in blocks:
        ctypes.memset(block, 1, size)
    kept = blocks.pop()  # the end of the heap stays in use, as it does in a process at work
    for block in blocks:
        libc.free(block)
    before = resident_mb()
    return_freed_memory()
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 0.01)
    assert before - resident_mb() < 20, "a short compilation is not worth the search"
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 1.0)
    assert before - resident_mb() > 50
    libc.free(kept)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="returns memory of glibc alone")
def test_freed_memory_is_returned_after_a_long_compilation():
    program = "from tests.loop.test_compilation import free_and_compile; free_and_compile()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
