import pytest

from tests.train import tiny


@pytest.fixture(scope="session")
def prepared():
    """A tiny run and its first state, compiled once for all tests; steps must copy the state."""
    return tiny.easy_run(tiny.config())
