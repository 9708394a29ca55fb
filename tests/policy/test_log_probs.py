"""Chunked log-probabilities: values, gradients, and what never exists in memory."""

import contextlib

import distrax
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpsjax.policy import PolicyConfig, abstract_policy, log_probs, shardings, token_log_probs
from tests.oracles import transformer as oracle
from tests.policy.conftest import CONFIG, VARIANTS, left_padded, make_policy, plain_params


def _responses(batch, group, size, vocab, seed=1):
    rng = np.random.default_rng(seed)
    tokens = jnp.asarray(rng.integers(0, vocab, (batch, group, size)), jnp.int32)
    lengths = rng.integers(1, size + 1, (batch, group))
    lengths.flat[0] = size
    return tokens, jnp.asarray(np.arange(size) < lengths[..., None])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_agrees_with_the_numpy_oracle(name, temperature):
    config = VARIANTS[name]
    policy = make_policy(config)
    prompt, prompt_mask = left_padded([5, 1], 5, config.vocab_size)
    tokens, mask = _responses(2, 2, 6, config.vocab_size)
    call = jax.jit(lambda *args: token_log_probs(*args, temperature=temperature, chunk=4))
    log_probs, entropy = call(policy, prompt, prompt_mask, tokens, mask)
    params, plain = plain_params(policy), config.to_dict()
    for b in range(2):
        start = np.asarray(prompt[b])[np.asarray(prompt_mask[b])]
        for g in range(2):
            text = np.concatenate([start, np.asarray(tokens[b, g])])
            table = oracle.log_softmax(oracle.forward(params, plain, text) / temperature)
            for t in range(6):
                row = table[len(start) - 1 + t]
                truth = (row[tokens[b, g, t]], -(np.exp(row) * row).sum())
                expected = truth if mask[b, g, t] else (0.0, 0.0)
                ours = (log_probs[b, g, t], entropy[b, g, t])
                np.testing.assert_allclose(ours, expected, atol=3e-5)


def test_agrees_with_distrax(policy):
    """Log-probability and entropy of the first response token, as a categorical distribution."""
    prompt, prompt_mask = left_padded([5, 5], 5, CONFIG.vocab_size)
    tokens, mask = _responses(2, 3, 1, CONFIG.vocab_size)
    log_probs, entropy = token_log_probs(policy, prompt, prompt_mask, tokens, mask)
    config, params = CONFIG.to_dict(), plain_params(policy)
    for b in range(2):
        logits = oracle.forward(params, config, np.asarray(prompt[b]))[-1]
        law = distrax.Categorical(logits=jnp.broadcast_to(jnp.asarray(logits), (3, 13)))
        np.testing.assert_allclose(log_probs[b, :, 0], law.log_prob(tokens[b, :, 0]), atol=3e-5)
        np.testing.assert_allclose(entropy[b, :, 0], law.entropy(), atol=3e-5)


def test_a_shared_prompt_gives_the_values_and_gradient_of_repeated_prompts(policy):
    prompt, prompt_mask = left_padded([5, 3], 5, CONFIG.vocab_size)
    tokens, mask = _responses(2, 3, 6, CONFIG.vocab_size)

    def loss(policy, shared):
        repeat = (lambda x: x) if shared else (lambda x: jnp.repeat(x, 3, axis=0))
        flat = (lambda x: x) if shared else (lambda x: x.reshape(6, 6))
        log_probs, entropy = token_log_probs(
            policy, repeat(prompt), repeat(prompt_mask), flat(tokens), flat(mask), chunk=6
        )
        return jnp.sum(jnp.sin(log_probs)) + jnp.sum(entropy)

    call = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (value, grads), (value_2, grads_2) = call(policy, True), call(policy, False)
    np.testing.assert_allclose(value, value_2, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_2), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_gradient_agrees_with_finite_differences(policy):
    prompt, prompt_mask = left_padded([5, 3], 5, CONFIG.vocab_size)
    tokens, mask = _responses(2, 2, 5, CONFIG.vocab_size)
    graph, params = nnx.split(policy)

    def loss(params):
        log_probs, entropy = token_log_probs(
            nnx.merge(graph, params), prompt, prompt_mask, tokens, mask, chunk=2
        )
        return jnp.sum(log_probs * log_probs) + jnp.sum(entropy)

    grads = jax.jit(jax.grad(loss))(params)
    value = jax.jit(loss)
    keys = iter(jax.random.split(jax.random.key(5), 3))
    for _ in range(3):
        leaves, tree = jax.tree.flatten(params)
        parts = jax.random.split(next(keys), len(leaves))
        ways = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(parts, leaves, strict=True)]
        ways = jax.tree.unflatten(tree, ways)
        ahead, behind = (jax.tree.map(lambda p, w, s=s: p + s * w, params, ways) for s in (H, -H))
        numeric = (float(value(ahead)) - float(value(behind))) / (2 * float(H))
        products = jax.tree.map(lambda g, w: float(jnp.sum(g * w)), grads, ways)
        analytic = sum(jax.tree.leaves(products))
        assert abs(analytic) > 1
        np.testing.assert_allclose(analytic, numeric, rtol=1e-2)


H = np.float32(1e-3)
WIDE = PolicyConfig(
    vocab_size=4096, width=8, mlp_width=8, layers=1, heads=2, kv_heads=1, head_dim=4
)


def _sizes(jaxpr):
    """Element counts of every array in a jaxpr and the jaxprs inside it."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield int(np.prod(variable.aval.shape))
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(inner, jax.extend.core.ClosedJaxpr):
                    inner = inner.jaxpr
                if isinstance(inner, jax.extend.core.Jaxpr):
                    yield from _sizes(inner)


def test_no_array_holds_logits_of_all_tokens():
    policy = make_policy(WIDE)
    batch, group, size, chunk = 2, 2, 16, 16
    prompt, prompt_mask = left_padded([3, 2], 3, WIDE.vocab_size)
    tokens, mask = _responses(batch, group, size, WIDE.vocab_size)

    def largest(chunk):
        def loss(policy):
            log_probs, entropy = token_log_probs(
                policy, prompt, prompt_mask, tokens, mask, chunk=chunk
            )
            return log_probs.sum() + entropy.sum()

        graph_free = jax.make_jaxpr(jax.value_and_grad(loss))(policy)
        return max(_sizes(graph_free.jaxpr))

    full = batch * group * size * WIDE.vocab_size
    assert largest(batch * group * size) == full  # the measure sees what it must see
    assert largest(chunk) == chunk * WIDE.vocab_size


BUDGET = 1 << 18


def _temporaries(shape, mesh=None, chunk=None):
    """Bytes on a device beside arguments and results, of the gradient, as compiled."""
    graph, params = abstract_policy(WIDE)

    def loss(params, *batch):
        log_probs, entropy = token_log_probs(nnx.merge(graph, params), *batch, chunk=chunk)
        return log_probs.sum() + entropy.sum()

    def batch(shape, kind):
        rows = None if mesh is None else NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        return jax.ShapeDtypeStruct(shape, kind, sharding=rows)

    if mesh is not None:
        places = shardings(params, mesh)
        params = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), params, places
        )
    prompt = (shape[0], 3)
    arguments = (batch(prompt, jnp.int32), batch(prompt, bool), batch(shape, jnp.int32))
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss)).lower(params, *arguments, batch(shape, bool))
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("shape", [(32, 16), (512, 4), (8, 4, 16)])
def test_the_budget_of_logits_is_kept_whatever_the_shape(shape, monkeypatch):
    other = _temporaries(shape, chunk=1)
    all_logits = 4 * np.prod(shape) * WIDE.vocab_size
    assert _temporaries(shape) - other > 2 * all_logits  # the measure sees what it must see
    monkeypatch.setattr("dpsjax.policy.log_probs.LOGITS", BUDGET)
    assert all_logits > 7 * 4 * BUDGET
    assert _temporaries(shape) - other < 4.2 * 4 * BUDGET  # a CPU holds them four times


def test_the_budget_is_of_one_device(monkeypatch):
    monkeypatch.setattr("dpsjax.policy.log_probs.LOGITS", BUDGET)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    with jax.set_mesh(mesh):
        assert log_probs._default_chunk(512, WIDE.vocab_size) == 128  # half the vocabulary
        assert log_probs._default_chunk(512, 4095) == 64  # which does not divide
    shape = (32, 64)  # 8 rows a device
    assert _temporaries(shape, mesh) < 0.5 * _temporaries(shape, mesh, chunk=512)


def test_bad_arguments_are_named(policy):
    prompt, prompt_mask = left_padded([3], 3, CONFIG.vocab_size)
    tokens, mask = _responses(1, 1, 4, CONFIG.vocab_size)
    with pytest.raises(ValueError, match="chunk=0 must be positive"):
        token_log_probs(policy, prompt, prompt_mask, tokens, mask, chunk=0)
    with pytest.raises(ValueError, match=r"tokens must be int\[B, G, T\]"):
        token_log_probs(policy, prompt, prompt_mask, tokens[None], mask[None])
