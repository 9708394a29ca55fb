"""Small policies that differ in every architectural choice, and padded prompts for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dpsjax.policy import Compute, Policy, PolicyConfig, Rope

CONFIG = PolicyConfig(
    vocab_size=13, width=16, mlp_width=24, layers=2, heads=4, kv_heads=2, head_dim=6
)
VARIANTS = {
    "plain": CONFIG,
    "qwen2": dataclasses.replace(CONFIG, attention_bias=True, rope=Rope(theta=1e6)),
    "qwen3": dataclasses.replace(CONFIG, qk_norm=True, kv_heads=1, tied_embeddings=False),
    "llama3": dataclasses.replace(
        CONFIG,
        tied_embeddings=False,
        kv_heads=4,
        norm_eps=1e-5,
        rope=Rope(scaling="llama3", factor=8.0, original_positions=24, theta=100.0),
    ),
    "linear": dataclasses.replace(CONFIG, rope=Rope(scaling="linear", factor=4.0)),
}


def make_policy(config, compute=None, seed=0):
    """A policy whose every parameter is random, biases and norms too, and logits are spread."""
    policy = Policy(config, compute, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(policy)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 100), len(leaves))
    noise = [
        leaf + 0.2 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, noise))


def plain_params(policy):
    """Nested dict of NumPy arrays, for the oracle."""
    pure = nnx.to_pure_dict(nnx.split(policy)[1])
    return jax.tree.map(np.asarray, pure)


def left_padded(lengths, size, vocab, seed=0):
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, vocab, (len(lengths), size))
    mask = np.arange(size)[None] >= size - np.asarray(lengths)[:, None]
    return jnp.asarray(np.where(mask, prompt, 0), jnp.int32), jnp.asarray(mask)


@pytest.fixture(scope="session")
def policy():
    return make_policy(CONFIG)


@pytest.fixture(scope="session")
def compute_scan():
    return Compute(scan_layers=True, remat="full", query_chunk=3)
