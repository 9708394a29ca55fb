"""Checkpoint folders without transformers: configurations, weights and refusals."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from dpsjax.policy import load_checkpoint, save_checkpoint
from dpsjax.policy.config_json import config_from_json, config_to_json
from tests.policy.conftest import VARIANTS, make_policy

QWEN2_HALF_B = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_a_public_configuration_has_its_published_size():
    config = config_from_json(QWEN2_HALF_B)
    assert config.num_params() == 494_032_768  # the model card's 0.49 billion
    assert config.attention_bias and config.head_dim == 64 and config.rope.theta == 1e6


@pytest.mark.parametrize("name", ["plain", "qwen3", "llama3", "linear"])
def test_configuration_and_weights_survive_a_folder(name, tmp_path):
    config, params = VARIANTS[name], nnx.split(make_policy(VARIANTS[name]))[1]
    assert config_from_json(config_to_json(config)) == config
    save_checkpoint(tmp_path, config, params, shard_bytes=3000)
    assert len(list(tmp_path.glob("model-0*.safetensors"))) > 2
    loaded_config, loaded = load_checkpoint(tmp_path)
    assert loaded_config == config
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    save_checkpoint(tmp_path, config, params)  # over the shards: the index must not survive
    assert not (tmp_path / "model.safetensors.index.json").exists()
    load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_json({**QWEN2_HALF_B, **change})


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="'hidden_size' is missing"):
        config_from_json({k: v for k, v in QWEN2_HALF_B.items() if k != "hidden_size"})
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(QWEN2_HALF_B))
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_checkpoint(tmp_path)
    index = {"weight_map": {"lm_head.weight": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside the folder"):
        load_checkpoint(tmp_path)


@pytest.fixture
def saved(tmp_path):
    params = nnx.split(make_policy(VARIANTS["plain"]))[1]
    save_checkpoint(tmp_path, VARIANTS["plain"], params)
    return tmp_path


def _change(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})


def test_two_sets_of_weights_are_refused(saved, tmp_path_factory):
    other = tmp_path_factory.mktemp("older")
    params = nnx.split(make_policy(VARIANTS["plain"], seed=1))[1]
    save_checkpoint(other, VARIANTS["plain"], params, shard_bytes=3000)
    for path in other.glob("model*"):
        shutil.copy(path, saved)
    with pytest.raises(ValueError, match="two sets of weights"):
        load_checkpoint(saved)
    for path in saved.glob("model-0*"):
        path.unlink()  # the index alone is left: still not to be guessed
    with pytest.raises(ValueError, match="two sets of weights"):
        load_checkpoint(saved)
    names = safetensors.numpy.load_file(saved / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    load_checkpoint(saved)  # one set, named twice


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16])
def test_a_head_beside_a_tied_embedding_must_be_the_same(kind, saved, monkeypatch):
    monkeypatch.setattr("dpsjax.policy.weights._ROWS", 5)

    def both(tensors, change=0):
        tensors[EMBEDDING] = tensors[EMBEDDING].astype(kind)
        tensors[HEAD] = tensors[EMBEDDING].astype(np.float32)
        tensors[HEAD][-1, -1] += change

    _change(saved, both)
    _, params = load_checkpoint(saved)
    stored = safetensors.numpy.load_file(saved / "model.safetensors")[HEAD]
    np.testing.assert_array_equal(params["embed_vd"][...], stored)
    _change(saved, lambda tensors: both(tensors, 1))
    with pytest.raises(ValueError, match=r"'lm_head\.weight' differs from the embedding"):
        load_checkpoint(saved)
    _change(saved, lambda tensors: tensors.update({HEAD: tensors[HEAD][:-1].copy()}))
    with pytest.raises(ValueError, match=r"'lm_head\.weight' has shape \(12, 16\)"):
        load_checkpoint(saved)
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(values | {"tie_word_embeddings": False})
    (saved / "config.json").write_text(text, encoding="utf-8")
    _change(saved, lambda tensors: both(tensors, 1))
    _, params = load_checkpoint(saved)  # as the message says
    assert float(params["head_dv"][...][-1, -1] - params["embed_vd"][...][-1, -1]) == 1


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16", "int8", "float8_e4m3fn"])
def test_weights_are_floats_of_at_least_16_bits(kind, saved):
    name = "model.layers.1.mlp.up_proj.weight"
    before = safetensors.numpy.load_file(saved / "model.safetensors")[name]

    def narrow(tensors):
        tensors[name] = (tensors[name] * 50).astype(np.dtype(getattr(ml_dtypes, kind, kind)))

    _change(saved, narrow)
    if kind in ("int8", "float8_e4m3fn"):
        with pytest.raises(ValueError, match=f"{name}.* has type .*before quantisation"):
            load_checkpoint(saved)
        return
    _, params = load_checkpoint(saved)
    up = params["layers"]["up_df"][...][1].T
    assert up.dtype == np.float32
    np.testing.assert_allclose(up, before * 50, rtol=1e-2)


def test_a_quantised_checkpoint_is_refused():
    with pytest.raises(ValueError, match="quantization_config"):
        config_from_json({**QWEN2_HALF_B, "quantization_config": {"bits": 4}})
