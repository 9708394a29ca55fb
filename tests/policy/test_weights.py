"""Weight files: what is written is read back, sharded or not, and damage is named."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh

from dpsjax.policy import abstract_policy, load_weights, save_weights
from tests.policy.conftest import CONFIG, VARIANTS, make_policy


def _params(config):
    return nnx.split(make_policy(config))[1]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "base.safetensors"
    save_weights(path, CONFIG, _params(CONFIG))
    return path


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip_is_exact(name, tmp_path):
    params = _params(VARIANTS[name])
    save_weights(tmp_path / "w.safetensors", VARIANTS[name], params)
    config, loaded = load_weights(tmp_path / "w.safetensors")
    assert config == VARIANTS[name]
    assert jax.tree.structure(params) == jax.tree.structure(loaded)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]  # no temporary files


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 8, 1), (1, 1, 8)])
def test_every_shard_is_read_into_its_place(saved, shape):
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp", "tensor"))
    _, loaded = load_weights(saved, mesh=mesh)
    for a, b in zip(jax.tree.leaves(_params(CONFIG)), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.sharding.mesh == mesh
    gate = loaded["layers"]["gate_df"][...]
    local = gate.addressable_shards[0].data.shape
    assert local == (2, 16 // shape[1], 24 // shape[2])


def test_names_and_shapes_are_those_of_public_checkpoints(saved):
    tensors = safetensors.numpy.load_file(saved)
    assert tensors["model.layers.1.self_attn.q_proj.weight"].shape == (24, 16)
    assert tensors["model.layers.0.self_attn.o_proj.weight"].shape == (16, 24)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (16, 24)
    params = nnx.to_pure_dict(_params(CONFIG))
    query = np.asarray(params["layers"]["query_dnh"][1]).reshape(16, 24).T
    np.testing.assert_array_equal(tensors["model.layers.1.self_attn.q_proj.weight"], query)
    assert "lm_head.weight" not in tensors


def _rewrite(path, change):
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    change(tensors, metadata)
    safetensors.numpy.save_file(tensors, path, metadata=metadata)


NAME = "model.layers.1.mlp.up_proj.weight"
DAMAGE = {
    "missing": (lambda t, m: t.pop(NAME), "is missing"),
    "wrong shape": (lambda t, m: t.update({NAME: t[NAME][:-1].copy()}), r"shape \(23, 16\)"),
    "unknown": (lambda t, m: t.update({NAME + "_2": t[NAME].copy()}), "has no place"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_wrong_tensors_are_named(saved, kind):
    change, message = DAMAGE[kind]
    _rewrite(saved, change)
    with pytest.raises(ValueError, match=message) as error:
        load_weights(saved)
    assert str(saved) in str(error.value) and NAME in str(error.value)


def test_truncated_file_names_file_and_tensor(saved):
    content = saved.read_bytes()
    saved.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"truncated: tensor 'model\.") as error:
        load_weights(saved)
    assert str(saved) in str(error.value)
    saved.write_bytes(content[:50])
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        load_weights(saved)
    saved.write_bytes(b"\x08" + b"\0" * 7 + b"not json" * 4)
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights(saved)


def test_missing_file_and_missing_configuration_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_weights(tmp_path / "nowhere.safetensors")
    _rewrite(saved, lambda tensors, metadata: metadata.pop("policy_config"))
    with pytest.raises(ValueError, match="holds no policy configuration"):
        load_weights(saved)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("dpsjax.policy.tensor_files.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(saved, CONFIG, _params(CONFIG))
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_configuration_is_readable_json_in_the_header(saved):
    with safetensors.safe_open(saved, framework="np") as file:
        assert json.loads(file.metadata()["policy_config"])["width"] == 16


def test_abstract_policy_has_the_shapes_of_a_real_one():
    real = _params(CONFIG)
    _, shapes = abstract_policy(CONFIG)
    assert jax.tree.map(np.shape, real) == jax.tree.map(lambda leaf: leaf.shape, shapes)
