import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dpsjax.loop.state import TrainState, digest, initial_state


@pytest.fixture
def state(key):
    params = {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "bias": jnp.zeros(3)}
    optimizer = optax.sgd(0.1, momentum=0.9)
    selector = ({"mu": jnp.full((3, 16), 1 / 3, jnp.float32)}, ())
    return initial_state(params, optimizer.init(params), selector, key, num_prompts=16)


def test_the_state_is_one_pytree_that_passes_through_jit(state):
    after = jax.jit(lambda s: s._replace(step=s.step + 1, key=jax.random.fold_in(s.key, s.step)))
    new = after(state)
    assert isinstance(new, TrainState)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert new.step == 1 and new.step.dtype == new.position.dtype == jnp.int32
    assert digest(new) != digest(state)


def test_equal_states_have_equal_digests(state):
    assert (
        digest(state)
        == digest(jax.tree.map(jnp.copy, state))
        == digest(jax.jit(lambda s: s)(state))
    )
    assert len(digest(state)) == 64
    as_numpy = jax.tree.map(np.asarray, state._replace(key=jnp.zeros(2)))
    assert digest(as_numpy) == digest(state._replace(key=jnp.zeros(2)))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s._replace(step=s.step + 1),
        lambda s: s._replace(key=jax.random.key(1)),
        lambda s: s._replace(key=jax.random.key(0, impl="rbg")),
        lambda s: s._replace(step=s.step.astype(jnp.int16)),
        lambda s: s._replace(params={**s.params, "kernel": s.params["kernel"].reshape(3, 2)}),
        lambda s: s._replace(params={"weight": s.params["kernel"], "bias": s.params["bias"]}),
        lambda s: s._replace(params={**s.params, "bias": s.params["bias"].at[0].set(-0.0)}),
        lambda s: s._replace(
            params={**s.params, "kernel": jnp.nextafter(s.params["kernel"], jnp.float32(9))}
        ),
    ],
    ids=["value", "key", "key implementation", "dtype", "shape", "name", "sign of 0", "one bit"],
)
def test_any_change_changes_the_digest(state, change):
    assert digest(change(state)) != digest(state)


def test_order_of_insertion_and_sharding_do_not_matter(state):
    mesh = jax.make_mesh((8,), ("all",))
    spread = jax.device_put(state.selector, NamedSharding(mesh, PartitionSpec(None, "all")))
    assert digest(state._replace(selector=spread)) == digest(state)
    turned = {"b": jnp.ones(2), "a": jnp.zeros(2)}
    assert digest(turned) == digest({"a": jnp.zeros(2), "b": jnp.ones(2)})


def test_low_precision_arrays_have_a_digest():
    assert digest(jnp.ones(3, jnp.bfloat16)) != digest(jnp.ones(3, jnp.float16))
