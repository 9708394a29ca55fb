"""The transformer against a float64 NumPy oracle, for every architectural choice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import TypeCheckError

from dpsjax.policy import Compute, Policy, PolicyConfig, Rope, shardings, tiny_config
from dpsjax.policy.sharding import partition_spec
from tests.oracles import transformer as oracle
from tests.policy.conftest import CONFIG, VARIANTS, left_padded, make_policy, plain_params


@jax.jit
def _logits(policy, tokens, mask):
    positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    return policy.logits(policy(tokens, positions, mask))


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_agrees_with_the_numpy_oracle(name):
    config = VARIANTS[name]
    policy = make_policy(config)
    tokens, mask = left_padded([7, 4], 7, config.vocab_size)
    ours = np.asarray(_logits(policy, tokens, mask))
    params, plain = plain_params(policy), config.to_dict()
    for row in range(2):
        real = np.asarray(mask[row])
        truth = oracle.forward(params, plain, np.asarray(tokens[row])[real])
        assert truth.std() > 0.5  # a test of near-constant logits would prove nothing
        np.testing.assert_allclose(ours[row][real], truth, atol=3e-5)


def test_scan_remat_and_chunks_change_nothing(policy, compute_scan):
    graph_params = nnx.split(policy)[1]
    other = nnx.merge(nnx.split(make_policy(CONFIG, compute_scan))[0], graph_params)
    dots = nnx.merge(nnx.split(make_policy(CONFIG, Compute(remat="dots")))[0], graph_params)
    tokens, mask = left_padded([7, 4], 7, CONFIG.vocab_size)

    def loss(policy):
        real = jnp.where(mask[..., None], _logits(policy, tokens, mask), jnp.float32(0))
        return jnp.sum(jnp.sin(real))

    value, grads = jax.jit(jax.value_and_grad(loss))(policy)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 0.1
    for variant in (other, dots):
        value_2, grads_2 = jax.jit(jax.value_and_grad(loss))(variant)
        np.testing.assert_allclose(value, value_2, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_2), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_left_and_right_padding_change_nothing(policy):
    rng = np.random.default_rng(3)
    real = jnp.asarray(rng.integers(0, CONFIG.vocab_size, (1, 7)), jnp.int32)
    alone = _logits(policy, jnp.tile(real, (2, 1)), jnp.ones((2, 7), bool))[0]
    junk = jnp.asarray([5, 6], jnp.int32)
    off, on = jnp.zeros(2, bool), jnp.ones(5, bool)
    tokens = jnp.stack([jnp.append(junk, real[0, :5]), jnp.append(real[0, :5], junk)])
    padded = _logits(policy, tokens, jnp.stack([jnp.append(off, on), jnp.append(on, off)]))
    np.testing.assert_allclose(padded[0, 2:], alone[:5], atol=1e-5)
    np.testing.assert_allclose(padded[1, :5], alone[:5], atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(policy):
    half = make_policy(CONFIG, Compute(dtype="bfloat16"))
    tokens, mask = left_padded([7, 4], 7, CONFIG.vocab_size)
    shape = jax.eval_shape(lambda tokens, mask: half(tokens, tokens, mask), tokens, mask)
    assert shape.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.split(half)[1])} == {jnp.dtype("float32")}
    exact, rough = _logits(policy, tokens, mask), _logits(half, tokens, mask)
    assert rough.dtype == jnp.float32
    error = jnp.abs(jnp.where(mask[..., None], exact - rough, jnp.float32(0))).max()
    assert 0 < error < 0.25


def test_parameter_count_needs_no_parameters():
    for config in (*VARIANTS.values(), tiny_config(20)):
        shapes = nnx.eval_shape(lambda c=config: Policy(c, rngs=nnx.Rngs(0)))
        leaves = jax.tree.leaves(nnx.split(shapes)[1])
        assert config.num_params() == sum(int(np.prod(leaf.shape)) for leaf in leaves)


def test_configuration_survives_json():
    for config in VARIANTS.values():
        assert PolicyConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "kv_heads=3 must divide heads=4"),
        ({"head_dim": 5}, "head_dim=5 must be even"),
        ({"layers": 0}, "layers=0 must be positive"),
    ],
)
def test_impossible_shapes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_unknown_settings_are_named():
    with pytest.raises((ValueError, TypeCheckError), match="yarn"):
        Rope(scaling="yarn")
    with pytest.raises(ValueError, match="unknown PolicyConfig fields: depth"):
        PolicyConfig.from_dict({**CONFIG.to_dict(), "depth": 3})
    with pytest.raises((ValueError, TypeCheckError), match="float16"):
        Compute(dtype="float16")


def test_every_parameter_has_a_rule_and_the_mesh_is_used():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    for config in VARIANTS.values():
        params = nnx.split(make_policy(config))[1]
        specs = nnx.to_pure_dict(jax.tree.map(lambda s: s.spec, shardings(params, mesh)))
        assert specs["layers"]["gate_df"] == PartitionSpec(None, "fsdp", "tensor")
        assert specs["layers"]["query_dnh"] == PartitionSpec(None, "fsdp", "tensor", None)
        assert specs["layers"]["out_nhd"] == PartitionSpec(None, "tensor", None, "fsdp")
        one_kv_head = config.kv_heads == 1
        assert specs["layers"]["key_dmh"][2] == (None if one_kv_head else "tensor")
        assert specs["embed_vd"] == PartitionSpec(None, "fsdp")  # 13 tokens on 2 devices
        placed = jax.device_put(params, shardings(params, mesh))
        assert placed["layers"]["down_fd"][...].sharding.spec[1] == "tensor"


def test_activation_axes_shard_over_data_and_fsdp():
    rules = {"b": ("data", "fsdp"), "d": None}
    shape = {"data": 2, "fsdp": 4, "tensor": 1}
    assert partition_spec("bd", (8, 3), shape, rules) == PartitionSpec(("data", "fsdp"), None)
    assert partition_spec("bd", (6, 3), shape, rules) == PartitionSpec(None, None)


def test_forward_on_a_mesh_is_the_single_device_forward(policy):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    tokens, mask = left_padded([7, 4, 5, 1], 7, CONFIG.vocab_size)
    alone = _logits(policy, tokens, mask)
    graph, params = nnx.split(policy)
    placed = jax.device_put(params, shardings(params, mesh))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        spread = jax.jit(lambda p, t, m: _logits(nnx.merge(graph, p), t, m))(
            placed, jax.device_put(tokens, rows), jax.device_put(mask, rows)
        )
    real = np.asarray(mask)
    np.testing.assert_allclose(np.asarray(spread)[real], np.asarray(alone)[real], atol=2e-5)
