"""A checkpoint of one device goes on on eight, and the reverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.loop.state import digest
from dpsjax.run.checkpoint import Saver, read_state
from dpsjax.run.config import CheckpointConfig, MeshConfig, RolloutConfig
from dpsjax.run.outputs import real_rows
from dpsjax.tasks.countdown import CountdownConfig
from tests.run import tiny

POOL = 33  # eight devices need rows to fill up


@pytest.fixture(scope="module")
def both():
    task = CountdownConfig(**{**vars(tiny.TASK), "problems": POOL})
    settings = {"task": task, "rollout": RolloutConfig(prompts=6)}
    meshes = {"one": MeshConfig(data=1), "eight": MeshConfig(data=2, fsdp=2, tensor=2)}
    return {
        name: tiny.easy_run(tiny.config(**settings, mesh=mesh)) for name, mesh in meshes.items()
    }


def _move(run, state, path, target):
    saver = Saver(path, CheckpointConfig(), pytest.fail)
    saver.save(state, {"step": int(state.step), "held_out": None})
    saver.close()
    place, rows = path / str(int(state.step)), state.visits.shape[0]
    return read_state(place, target, run.stages.axes, rows, POOL)


def _belief(run, state):
    return real_rows((state.selector, state.visits), (run.stages.axes, 0), POOL)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("one", "eight"), ("eight", "one")])
def test_a_checkpoint_goes_on_on_other_hardware(both, tmp_path, first, then):
    """Selections and pass counts equal; parameters to 1e-5 (measured: 6e-8)."""
    (run, state), (other, target) = both[first], both[then]
    middle, _ = tiny.steps(run, state, count=3)
    moved = _move(run, middle, tmp_path, target)
    # the move itself changes no bit
    assert digest(moved.params) == digest(middle.params)
    assert digest(moved.opt_state) == digest(middle.opt_state)
    assert digest(_belief(run, moved)) == digest(_belief(run, middle))
    assert digest((moved.key, moved.step, moved.position)) == digest(
        (middle.key, middle.step, middle.position)
    )
    same_place = jax.tree.map(lambda a, b: a.sharding == b.sharding, moved, target)
    assert all(jax.tree.leaves(same_place))
    active = moved.selector.active
    assert active.shape == target.visits.shape and int(active.sum(dtype=jnp.int32)) == POOL

    alone, stayed = tiny.steps(run, middle, count=3)
    shared, went = tiny.steps(other, moved, count=3)
    for one, two in zip(stayed, went, strict=True):
        assert one["groups"]["prompt"] == two["groups"]["prompt"]
        assert one["groups"]["passes"] == two["groups"]["passes"]
    apart = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
        alone.params,
        shared.params,
    )
    worst = max(jax.tree.leaves(apart))
    print(f"{first} -> {then}: parameters differ by at most {worst:.2e} after 3 steps")
    assert worst < 1e-5


@pytest.mark.slow
def test_rows_that_fill_up_the_pool_stay_those_of_the_target(both, tmp_path):
    run, state = both["one"]
    visited = state._replace(visits=jnp.arange(1, POOL + 1, dtype=jnp.int32))
    found = _move(run, visited, tmp_path, both["eight"][1])
    assert found.visits.tolist() == [*range(1, POOL + 1), *[0] * 7]
