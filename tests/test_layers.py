"""Imports point down only (the contract stands in pyproject.toml)."""

import shutil
import subprocess
from pathlib import Path

import pytest


def test_layers():
    command = shutil.which("lint-imports")
    if command is None:
        pytest.skip("import-linter is not installed: pip install -e '.[test]'")
    root = Path(__file__).parent.parent
    done = subprocess.run([command, "--no-cache"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
