"""Adapters: Qwix's own forward pass is the oracle of the merged one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from dpsjax.policy import Policy, PolicyConfig, abstract_policy, token_log_probs

pytest.importorskip("qwix", reason="needs the extra: lora")

from dpsjax.policy.lora import adapted_layer, factors, init_lora, merge_lora
from dpsjax.policy.transformer import Layer, rope_angles

CONFIG = PolicyConfig(
    vocab_size=20,
    width=16,
    mlp_width=24,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    attention_bias=True,
)
RANK, ALPHA = 3, 6.0
MATRICES = {"query_dnh", "key_dmh", "value_dmh", "out_nhd", "gate_df", "up_df", "down_fd"}


@pytest.fixture(scope="module")
def base():
    return nnx.split(Policy(CONFIG, rngs=nnx.Rngs(0)))[1]


@pytest.fixture(scope="module")
def fresh():
    return jax.jit(lambda key: init_lora(key, CONFIG, RANK, ALPHA))(jax.random.key(1))


def _moved(lora):
    """The adapters with factors ``B`` that are not 0."""
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape, x.dtype), lora)


def test_every_matrix_of_a_layer_has_one_and_the_start_is_the_base(base, fresh):
    assert set(fresh["layers"]) == MATRICES
    for pair in fresh["layers"].values():
        assert pair["a"].shape[-1] == RANK == pair["b"].shape[1]
        assert not np.any(pair["b"]) and np.any(pair["a"])
        assert not np.array_equal(pair["a"][0], pair["a"][1])  # the layers differ
    merged = merge_lora(base, fresh, ALPHA / RANK)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    jax.tree.map(np.testing.assert_array_equal, merged, base)


def test_the_merged_layer_is_the_layer_that_qwix_intercepts():
    layer = adapted_layer(CONFIG, RANK, ALPHA, nnx.Rngs(3))
    state = nnx.state(layer, nnx.LoRAParam)
    nnx.update(layer, _moved(state))
    x = jax.random.normal(jax.random.key(4), (2, 1, 5, CONFIG.width), jnp.float32)
    places = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32), (2, 1, 5))
    angles = rope_angles(places, CONFIG.rope, CONFIG.head_dim)
    mask = jnp.tril(jnp.ones((5, 5), bool))[None, None]
    theirs, _ = layer(x, angles, mask, [], 0)
    plain = Layer(CONFIG, nnx.Rngs(0))
    for name, pair in factors(layer).items():
        delta = np.tensordot(np.float64(pair["a"]), np.float64(pair["b"]), axes=1)
        setattr(
            layer, name, nnx.Param(getattr(layer, name)[...] + ALPHA / RANK * jnp.float32(delta))
        )
    for name, value in vars(plain).items():
        if isinstance(value, nnx.Param):
            setattr(plain, name, nnx.Param(getattr(layer, name)[...]))
    ours, _ = plain(x, angles, mask, [], 0)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    without, _ = Layer(CONFIG, nnx.Rngs(3))(x, angles, mask, [], 0)
    assert np.abs(without - theirs).max() > 1e-2


def test_merging_is_the_sum_of_products(base, fresh):
    lora = _moved(fresh)
    merged = merge_lora(base, lora, 2.0)
    for name in MATRICES:
        pair = lora["layers"][name]
        for i in range(CONFIG.layers):
            delta = np.tensordot(np.float64(pair["a"][i]), np.float64(pair["b"][i]), axes=1)
            expected = np.float64(base["layers"][name][...][i]) + 2.0 * delta
            np.testing.assert_allclose(merged["layers"][name][...][i], expected, atol=1e-5)
    for name in ("attention_norm_d", "query_bias_nh"):
        np.testing.assert_array_equal(merged["layers"][name][...], base["layers"][name][...])


def test_training_adapters_raises_the_likelihood(base, fresh):
    graph = abstract_policy(CONFIG)[0]
    prompt, tokens = (
        jax.random.randint(jax.random.key(i), (4, 3), 0, 20, jnp.int32) for i in (5, 6)
    )
    full = jnp.ones((4, 3), bool)
    optimizer = optax.sgd(0.5)

    def loss(lora):
        model = nnx.merge(graph, merge_lora(base, lora, ALPHA / RANK))
        return -token_log_probs(model, prompt, full, tokens, full)[0].mean()

    def step(lora, _):
        value, grads = jax.value_and_grad(loss)(lora)
        updates, _ = optimizer.update(grads, optimizer.init(lora))
        return optax.apply_updates(lora, updates), value

    _, values = jax.jit(lambda lora: jax.lax.scan(step, lora, None, length=30))(fresh)
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (2, 0.0)])
def test_sizes_out_of_range(rank, alpha):
    with pytest.raises(ValueError, match="must be positive"):
        init_lora(jax.random.key(0), CONFIG, rank, alpha)
