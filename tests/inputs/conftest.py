"""As for users: annotations are not enforced, and promotion is JAX's own."""

import jax
import pytest
from jaxtyping import config


@pytest.fixture(autouse=True)
def as_for_users():
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    config.update("jaxtyping_disable", before)
