"""States that come back from a file, or are of something else."""

import io

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jaxtyping import config

import dpsjax
from dpsjax import selectors
from tests.selectors.table import RECIPES, SELECTORS, data

N, B = 24, 4


def played(selector, rounds=2):
    """A state with a past."""
    state = selector.init(N, data(N))
    for step in range(rounds):
        state = turn(selector, state, step)[1]
    return state


def turn(selector, state, step):
    batch, state = dpsjax.select(selector, jax.random.key(step), state, B)
    seen = batch.index, np.arange(B) % 5, np.full(B, 4)
    return batch.index, dpsjax.observe(selector, state, *seen)[1]


def by_flax(state, target, folder):
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def by_numpy(state, target, folder):
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    with np.load(file) as leaves:
        return jax.tree.unflatten(jax.tree.structure(target), list(leaves.values()))


def by_orbax(state, target, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", target)


@pytest.fixture
def as_for_users():
    """Annotations are not enforced: the library must say it, not the tests."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


WAYS = {"flax": by_flax, "numpy": by_numpy, "orbax": by_orbax}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["dps", "mopps", "all at once"])
def test_a_restored_state_goes_on_eagerly_and_jitted(name, way, tmp_path):
    selector = SELECTORS[name]()
    state = played(selector)
    restored = WAYS[way](state, selector.init(N, data(N)), tmp_path)
    truth = turn(selector, state, 9)
    for found in (
        turn(selector, restored, 9),
        jax.jit(lambda state: turn(selector, state, 9))(restored),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, truth)


@pytest.mark.parametrize("name", RECIPES)
def test_leaves_of_numpy_work_in_every_recipe(name):
    selector = RECIPES[name]()
    state = played(selector, 1)
    truth = turn(selector, state, 9)
    found = turn(selector, jax.tree.map(np.asarray, state), 9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, truth)


CALLS = {
    "select": lambda selector, state: dpsjax.select(selector, jax.random.key(0), state, 2),
    "observe": lambda selector, state: dpsjax.observe(
        selector, state, np.array([1]), np.array([1]), np.array([4])
    ),
    "inspect": lambda selector, state: dpsjax.inspect(selector, state),
    "advance": lambda selector, state: dpsjax.advance(selector, state),
    "add_prompts": lambda selector, state: selectors.add_prompts(selector, state, np.array([1])),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_state_of_another_selector_is_refused(call):
    for made, given in (
        (selectors.mopps(), selectors.dps()),
        (selectors.dps(num_states=5), selectors.dps()),
        (selectors.dps_binomial(cells=8), selectors.dps_binomial(cells=16)),
    ):
        with pytest.raises(ValueError, match="state is of another selector"):
            CALLS[call](given, made.init(6))


@pytest.mark.parametrize("call", CALLS)
def test_a_state_of_two_pools_is_refused(call):
    selector = selectors.dps()
    state = selector.init(6)._replace(parts=selector.init(9).parts)
    with pytest.raises(ValueError, match="state holds parts of pools of 6 and 9"):
        CALLS[call](selector, state)


def test_a_target_of_another_size_is_named_by_what_restores():
    """What flax restores into a pool of another size is the file's pool: ids must lie in it."""
    selector = selectors.dps()
    restored = by_flax(selector.init(6), selector.init(9), None)
    with pytest.raises(ValueError, match=r"index must lie in \[0, 6\)"):
        dpsjax.observe(selector, restored, np.array([7]), np.array([1]), np.array([4]))


def test_orbax_without_a_target_is_told_to_give_one(tmp_path, as_for_users):
    selector = selectors.dps()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", selector.init(6))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state")
    with pytest.raises(TypeError, match=r"into selector.init\(num_prompts\), its target"):
        dpsjax.select(selector, jax.random.key(0), restored, 2)


@pytest.mark.parametrize("state", [None, (), {}, [], jnp.zeros(3)])
def test_what_is_no_state_is_refused(state, as_for_users):
    for call in CALLS.values():
        with pytest.raises(TypeError, match="state must come from a recipe's or a chain's init"):
            call(selectors.dps(), state)
