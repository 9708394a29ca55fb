import subprocess

import pytest

from tests.run import tiny


@pytest.fixture(scope="session")
def prepared():
    """A tiny run and its first state, compiled once for all tests; steps must copy the state."""
    return tiny.easy_run(tiny.config())


@pytest.fixture
def disk(tmp_path):
    """Mount a file system of its own, in memory: a function of its size."""
    folder = tmp_path / "disk"

    def mount(size):
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(words, capture_output=True, check=False)
        except OSError as error:
            pytest.skip(f"no mount here: {error}")
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    if folder.exists():
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
