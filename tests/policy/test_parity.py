"""Tiny random checkpoints made by transformers: the same logits, in both directions."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

torch = pytest.importorskip("torch", reason="needs the extra: parity")
transformers = pytest.importorskip("transformers", reason="needs the extra: parity")

from dpsjax.policy import abstract_policy  # noqa: E402
from dpsjax.policy.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen2 untied": ("Qwen2", {"tie_word_embeddings": False, "rope_theta": 1e4}),
    "qwen3 head": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 16, "rope_theta": 1e6}),
    "llama untied": ("Llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "llama3 scaled": ("Llama", {"rope_theta": 100.0, "rope_scaling": LLAMA3}),
    "llama linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
}
TOKENS = np.random.default_rng(0).integers(0, 61, (3, 40))


def _make(folder, name, shard="5GB"):
    """A checkpoint whose every parameter is random, saved by transformers."""
    family, settings = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, family + "Config")(**{**SHAPE, **settings})
    model = getattr(transformers, family + "ForCausalLM")(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard)
    return _torch_logits(model)


def _torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


@jax.jit
def _forward(policy, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    return policy.logits(policy(tokens, positions, jnp.ones(tokens.shape, bool)))


def _our_logits(config, params):
    policy = nnx.merge(abstract_policy(config)[0], params)
    return np.asarray(_forward(policy, jnp.asarray(TOKENS, jnp.int32)))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_agree_in_both_directions(name, tmp_path):
    truth = _make(tmp_path / "in", name)
    assert truth.std() > 0.3
    config, params = load_checkpoint(tmp_path / "in")
    np.testing.assert_allclose(_our_logits(config, params), truth, atol=1e-4)

    for out, source in (("out", tmp_path / "in"), ("bare", None)):
        save_checkpoint(tmp_path / out, config, params, source=source, shard_bytes=40_000)
        assert (tmp_path / out / "model.safetensors.index.json").is_file()
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / out, torch_dtype=torch.float32
        ).eval()
        assert type(model).__name__.startswith(FAMILIES[name][0])
        np.testing.assert_allclose(_torch_logits(model), truth, atol=1e-5)

    again, params = load_checkpoint(tmp_path / "out")
    assert again == config
    np.testing.assert_allclose(_our_logits(again, params), truth, atol=1e-4)


def test_sharded_index_loads_onto_a_mesh(tmp_path):
    truth = _make(tmp_path, "qwen2 untied", shard="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    config, params = load_checkpoint(tmp_path, mesh=mesh)
    gate = params["layers"]["gate_df"][...]
    assert gate.addressable_shards[0].data.shape == (3, 16, 24)
    np.testing.assert_allclose(_our_logits(config, params), truth, atol=1e-4)


def test_bfloat16_export_is_half_the_size_and_loads(tmp_path):
    _make(tmp_path / "in", "qwen3 head")
    config, params = load_checkpoint(tmp_path / "in")
    for dtype in ("float32", "bfloat16"):
        save_checkpoint(tmp_path / dtype, config, params, source=tmp_path / "in", dtype=dtype)
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "bfloat16")]
    assert 1.8 < sizes[0] / sizes[1] < 2.1
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16")
    assert model.dtype == torch.bfloat16
    exact = _our_logits(config, params)
    rough = _our_logits(*load_checkpoint(tmp_path / "bfloat16"))
    assert 0 < np.abs(exact - rough).max() < 0.2


def test_greedy_generation_agrees(tmp_path):
    from dpsjax.policy import Sampling, generate

    _make(tmp_path, "qwen2 tied")
    config, params = load_checkpoint(tmp_path)
    policy = nnx.merge(abstract_policy(config)[0], params)
    prompt = jnp.asarray(TOKENS[:, :6], jnp.int32)
    sampling = Sampling(max_tokens=10, temperature=0.0)
    call = jax.jit(generate, static_argnames=("sampling", "group"))
    ours = call(policy, jax.random.key(0), prompt, jnp.ones((3, 6), bool), sampling)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    start = torch.tensor(TOKENS[:, :6])
    theirs = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        max_new_tokens=10,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    np.testing.assert_array_equal(ours.tokens[:, 0], theirs[:, 6:].numpy())


def test_damaged_shards_name_file_and_tensor(tmp_path):
    whole = tmp_path / "whole"
    _make(whole, "qwen2 untied", shard="20KB")
    where = json.loads((whole / "model.safetensors.index.json").read_text())["weight_map"]
    tensor = "model.layers.2.mlp.up_proj.weight"
    folder = tmp_path / "damaged"
    shard = folder / where[tensor]

    shutil.copytree(whole, folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=shard.name):
        load_checkpoint(folder)

    shard.write_bytes((whole / shard.name).read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated: tensor 'model") as error:
        load_checkpoint(folder)
    assert shard.name in str(error.value)

    other = next(name for name in sorted(where.values()) if name != shard.name)
    shutil.copyfile(whole / other, shard)
    with pytest.raises(ValueError, match=r"tensor 'model\.layers.*' is missing") as error:
        load_checkpoint(folder)
    assert shard.name in str(error.value)
