"""A policy of a few dozen parameters and a batch for it, so that updates are tested without one."""

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax.grpo.batch import RolloutBatch

B, G, T, P, V, D = 8, 4, 3, 2, 5, 4


def params(dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"embed_vd": (V, D), "mlp": {"kernel": (D, D), "bias": (D,)}, "head_dv": (D, V)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(0, 0.7, shape), dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def log_prob_fn(params, prompt, prompt_mask, tokens, mask):
    """A bag of prompt tokens plus the previous response token, through one hidden layer."""
    embed = params["embed_vd"]
    real = prompt_mask.astype(embed.dtype)[..., None]
    context = jnp.sum(embed[prompt] * real, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
    previous = jnp.concatenate([jnp.zeros_like(tokens[..., :1]), tokens[..., :-1]], axis=-1)
    hidden = embed[previous] + context[:, None, None, :]
    hidden = jnp.tanh(hidden @ params["mlp"]["kernel"] + params["mlp"]["bias"].reshape(1, 1, 1, D))
    logs = jax.nn.log_softmax(hidden @ params["head_dv"])
    chosen = jnp.take_along_axis(logs, tokens[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(logs) * logs, axis=-1)


def batch(dtype=jnp.float32, noise=0.3, seed=1):
    """All B groups informative and accepted; the sampler off by ``noise`` nats a token."""
    rng = np.random.default_rng(seed)
    prompt = jnp.asarray(rng.integers(0, V, (B, P)), jnp.int32)
    prompt_mask = jnp.asarray(np.arange(P) >= rng.integers(0, P, (B, 1)))
    tokens = jnp.asarray(rng.integers(0, V, (B, G, T)), jnp.int32)
    mask = jnp.asarray(np.arange(T) < rng.integers(1, T + 1, (B, G, 1)))
    exact, _ = log_prob_fn(params(dtype), prompt, prompt_mask, tokens, mask)
    return RolloutBatch(
        index=jnp.arange(B, dtype=jnp.int32),
        prompt=prompt,
        prompt_mask=prompt_mask,
        tokens=tokens,
        mask=mask,
        log_probs=exact + jnp.asarray(rng.normal(0, noise, (B, G, T)), dtype),
        advantages=jnp.asarray(rng.normal(0, 1, (B, G)), dtype),
        informative=jnp.ones(B, bool),
        accept=jnp.ones(B, bool),
        weight=jnp.ones(B, jnp.float32),
    )


def rows(whole, index):
    """The batch made of the given rows."""
    return jax.tree.map(lambda x: x[np.asarray(index)], whole)


def largest_difference(a, b):
    differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), a, b)
    return max(float(d) for d in jax.tree.leaves(differences))


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
