import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.loop.compilation import cache_folder, use_compilation_cache
from dpsjax.loop.scoring import gather_errors
from dpsjax.run.agreement import Agreed, DisagreementError, checksum, compare
from dpsjax.run.processes import (
    DistributedConfig,
    _completed,
    _launched_together,
    from_first,
    gather_text,
    require_same,
)

ROWS = np.array([[1, 2, 3, 0, 1], [1, 2, 3, 0, 0], [1, 2, 3, 1, 0]])


def test_any_process_may_ask():
    assert compare(4, ROWS) == Agreed(True, True)
    assert compare(4, ROWS[1:2]) == Agreed(False, False)


@pytest.mark.parametrize(
    ("column", "what"),
    [(0, "selected prompts"), (1, "record of the step"), (2, "belief")],
)
def test_a_disagreement_names_step_value_and_processes(column, what):
    rows = ROWS.copy()
    rows[2, column] = 255
    with pytest.raises(DisagreementError, match=rf"step 4: .* {what}.*process 2 has 000000ff"):
        compare(4, rows)


def test_the_checksum_sees_every_bit_and_its_place():
    rng = np.random.default_rng(0)
    tree = {
        "a": jnp.asarray(rng.normal(size=(3, 7)), jnp.float32),
        "b": jnp.asarray(rng.integers(0, 2, 9), bool),
        "c": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
        "d": jnp.asarray(rng.normal(size=4), jnp.float64),
        "e": jax.random.key(3),
    }
    expected = int(checksum(tree))
    assert int(jax.jit(checksum)(tree)) == expected
    for name in "abcd":
        changed = dict(tree)
        place = (-1,) * tree[name].ndim
        if tree[name].dtype == bool:
            changed[name] = tree[name].at[place].set(~tree[name][place])
        else:
            changed[name] = tree[name].at[place].multiply(jnp.asarray(1.01, tree[name].dtype))
        assert int(checksum(changed)) != expected
    assert int(checksum({**tree, "a": tree["a"][::-1]})) != expected
    assert int(checksum({**tree, "e": jax.random.key(4)})) != expected


@pytest.mark.parametrize(
    ("environment", "together"),
    [
        ({}, False),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2"}, False),  # in an allocation, but not started by srun
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "WARNING: could not find it, please set it"}, False),
    ],
)
def test_launchers_are_recognised(environment, together):
    assert _launched_together(environment) is together


def test_the_environment_completes_what_is_not_typed():
    environment = {
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "0",
    }
    found = _completed(DistributedConfig(process=2), environment)
    assert (found.coordinator, found.processes, found.process) == ("a:1", 4, 2)
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES='x' must be a number"):
        _completed(DistributedConfig(), {"JAX_NUM_PROCESSES": "x"})


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"processes": 0}, "processes=0"),
        ({"process": 2, "processes": 2}, "process=2"),
        ({"process": -1}, "process=-1"),
        ({"coordinator": "nowhere"}, "coordinator='nowhere'"),
        ({"lost_seconds": 0}, "lost_seconds=0"),
        ({"connect_seconds": 0}, "connect_seconds=0"),
    ],
)
def test_settings_out_of_range(values, name):
    with pytest.raises(ValueError, match=name):
        DistributedConfig(**values)


def test_one_process_agrees_with_itself():
    assert gather_text("ab") == ["ab"]
    assert gather_errors(["x", "y"]) == ["x", "y"]
    assert from_first(lambda: 3) == 3
    require_same({"a": 1}, "now")


def test_hosts_of_a_kind_share_a_compilation_cache():
    folder = cache_folder({"XDG_CACHE_HOME": "/somewhere"})
    assert folder.is_relative_to("/somewhere/dpsjax/xla") and folder == cache_folder(
        {"XDG_CACHE_HOME": "/somewhere"}
    )


def test_no_home_is_no_cache_and_no_error(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", nobody)
    before = jax.config.jax_compilation_cache_dir
    use_compilation_cache({})
    assert jax.config.jax_compilation_cache_dir == before
