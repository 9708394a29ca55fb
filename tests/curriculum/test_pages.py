"""The three short pages, as they stand; each is looked at by what it leaves behind."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(name):
        text = (DOCS / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 25
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        namespace: dict = {}
        with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
            exec(compile(block, name, "exec"), namespace)
        return namespace

    return call


def test_numpy(run):
    left = run("loop_numpy.md")
    assert left["curriculum"].step == 19
    assert left["skill"] > 0.5  # it learned
    assert run("loop_numpy.md")["curriculum"].step == 19  # the second time it only loads


def test_jax(run):
    left = run("loop_jax.md")
    assert left["skill"] > 0.5
    effective = np.asarray(left["effective"])
    assert effective[10:].mean() > effective[:3].mean()  # it found the prompts that teach


def test_pytorch(run):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    left = run("loop_pytorch.md")
    solved = (left["policy"].weight.argmax(1) == torch.arange(100) % 10).float().mean()
    assert solved > 0.3  # by chance: 0.1
    assert left["curriculum"].metrics()["total_rollouts"] == 60 * 16 * 8
