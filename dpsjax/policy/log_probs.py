"""Log-probabilities of given responses, without ever holding logits for all of their tokens."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.policy.sharding import batch_ways, constrain, tensor_ways
from dpsjax.policy.transformer import Block, Policy
from dpsjax.policy.vision import (
    Images,
    prompt_positions,
    require_counted,
    require_images,
    with_pictures,
)
from dpsjax.policy.vision_config import VisionConfig
from dpsjax.types import Array, Bool, Float, Int

# Half a gigabyte: on a mesh every chunk gathers the output head and adds its gradient up over all
# devices, so chunks are as long as memory for them is cheap.
LOGITS = 1 << 27  # float32 logits on one device that exist at a time, unless the caller says

__all__ = [
    "LOGITS",
    "encode_prompt",
    "last_position",
    "logits_chunk",
    "require_prompt",
    "response_inputs",
    "token_log_probs",
]


def require_prompt(
    model: Policy, prompt: Array, prompt_mask: Array, images: Images | None = None
) -> tuple[Array, Array]:
    """Refuse what is no policy, or no batch of left-padded prompts; return these as JAX's arrays.

    Raises:
        TypeError: an argument is something else, or an array of another kind.
        ValueError: shapes do not fit, a token is not in the vocabulary, or a last one is masked; or
            pictures come to a policy without eyes, or with other tokens than they have.
    """
    checks.require_type(Policy, "a Policy", model=model)
    checks.require_arrays(prompt=(prompt, "int B P"), prompt_mask=(prompt_mask, "bool B P"))
    if prompt.shape[1] == 0:
        raise ValueError(f"prompt has shape {prompt.shape}: it needs at least one token")
    _require_ids(model, prompt=prompt)
    last = prompt_mask[:, -1]
    checks.require(last, "prompt_mask must be True in its last column, got {last}", last=last)
    if images is not None:
        require_images(images, prompt.shape[0], _eye(model))
        require_counted(prompt, prompt_mask, images, _eye(model))
    return jnp.asarray(prompt), jnp.asarray(prompt_mask)


def _eye(model: Policy) -> VisionConfig:
    if model.config.vision is None:
        raise ValueError("images: this policy has no vision tower; leave them out")
    return model.config.vision


def _require_ids(model: Policy, **ids: Array) -> None:
    size = model.config.vocab_size
    for name, value in ids.items():
        checks.require(
            (value >= 0) & (value < size),
            f"{name} must hold ids in [0, {size}), the vocabulary; got {{{name}}}",
            **{name: value},
        )


def encode_prompt(
    model: Policy,
    prompt: Int[Array, "B P"],
    prompt_mask: Bool[Array, "B P"],
    images: Images | None = None,
) -> Block:
    """Keys and values of left-padded prompts, once per prompt.

    The last prompt token is left out of the block's mask: it is the first input of the response
    segment (its hidden state predicts the first response token), which carries its own keys.
    """
    positions = _positions(model, prompt, prompt_mask, images)
    size, inputs = prompt.shape[1], None
    if images is not None:
        pictures, own = model.vision(images, model.compute), _eye(model)
        inputs = with_pictures(model.embedded(prompt), pictures, prompt, prompt_mask, own)[:, None]
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None] & prompt_mask[:, None, None, :]
    _, layers = model.segment(prompt[:, None], positions[:, None], causal, inputs=inputs)
    # drop the rollout axis: [(L,) B, m, 1, P, h] -> [(L,) B, m, P, h]
    layers = jax.tree.map(lambda leaf: leaf.squeeze(-3), layers)
    return Block(layers, prompt_mask.at[:, -1].set(False))


def _positions(model: Policy, prompt: Array, prompt_mask: Array, images: Images | None) -> Array:
    """Positions of prompt tokens ``[B, P]``, or three of each where there are pictures."""
    if images is None:
        return jnp.maximum(jnp.cumsum(prompt_mask, axis=1, dtype=jnp.int32) - 1, 0)
    return prompt_positions(prompt, prompt_mask, images, _eye(model))


def last_position(
    model: Policy, prompt: Array, prompt_mask: Array, images: Images | None
) -> Int[Array, "B"]:
    """Position of the last prompt token, which is text; a response counts up from there."""
    if images is None:
        return jnp.maximum(prompt_mask.sum(axis=1, dtype=jnp.int32) - 1, 0)
    return _positions(model, prompt, prompt_mask, images)[:, -1, 0]


def response_inputs(
    prompt: Int[Array, "B P"], first: Int[Array, "B"], tokens: Int[Array, "B G T"]
) -> tuple[Int[Array, "B G T"], Int[Array, "B G T"]]:
    """Input token and position at which each response token is predicted.

    ``first`` are the positions of the last prompt tokens.
    """
    b, g, t = tokens.shape
    last = jnp.broadcast_to(prompt[:, -1].reshape(b, 1, 1), (b, g, 1))
    inputs = jnp.concatenate([last, tokens[:, :, :-1]], axis=2)
    steps = jnp.arange(t, dtype=jnp.int32).reshape(1, 1, t)
    return inputs, jnp.broadcast_to(first.reshape(b, 1, 1) + steps, (b, g, t))


def _chunked(
    model: Policy, hidden: Array, tokens: Array, temperature: Array, chunk: int
) -> tuple[Array, Array]:
    """Log-probability and entropy of ``tokens [W, S]``, ``chunk`` of each row at a time."""
    w, s = tokens.shape
    chunk = min(chunk, s)
    pad = -s % chunk

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(w, -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint  # the backward pass recomputes a chunk's logits instead of keeping them
    def one(part: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden, tokens = part
        logits = model.logits(hidden) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        probs = jnp.exp(logits - normaliser[..., None])
        return chosen - normaliser, normaliser - jnp.sum(probs * logits, axis=-1)

    parts = (split(hidden), split(tokens))
    if parts[0].shape[0] == 1:
        log_probs, entropy = (x[None] for x in one((parts[0][0], parts[1][0])))
    else:
        log_probs, entropy = jax.lax.map(one, parts)

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(w, s + pad)[:, :s]

    return join(log_probs), join(entropy)


def logits_chunk(tokens: int, vocab_size: int) -> int:
    """Tokens whose logits fit into the budget ``LOGITS``, in equal parts.

    Args:
        tokens: on a device, at least 1.
        vocab_size: the part of it on a device.

    >>> logits_chunk(8 * 512, vocab_size=151_936)
    820
    >>> logits_chunk(8 * 16, vocab_size=20)
    128
    """
    fits = max(1, LOGITS // vocab_size)
    return -(-tokens // -(-tokens // fits))


def _default_chunk(tokens: int, vocab_size: int) -> int:
    tensor = tensor_ways()
    return logits_chunk(tokens, vocab_size // tensor if vocab_size % tensor == 0 else vocab_size)


def token_log_probs(
    model: Policy,
    prompt: Int[Array, "B P"],
    prompt_mask: Bool[Array, "B P"],
    tokens: Int[Array, "B *G T"],
    mask: Bool[Array, "B *G T"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    chunk: int | None = None,
    images: Images | None = None,
) -> tuple[Float[Array, "B *G T"], Float[Array, "B *G T"]]:
    """Log-probability and entropy of every response token, differentiable in the parameters.

    Only response tokens get logits, ``chunk`` of them on a device at a time, forward and backward:
    no larger array than ``chunk * V`` exists for them. With a rollout axis, ``tokens [B, G, T]``,
    the prompt is computed once and shared by its rollouts, with the exact gradient.

    Args:
        model: the policy.
        prompt: int32, left-padded.
        prompt_mask: True on real prompt tokens; the last column is always real.
        tokens: int32 responses, padded on the right; ``[B, T]`` or ``[B, G, T]``.
        mask: True on real response tokens. It only zeroes results: padding comes after them.
        temperature: divides the logits, as in sampling; entropies are of the tempered distribution.
        chunk: response tokens on a device whose logits exist at a time; None for as many as half a
            gigabyte holds (``LOGITS``).
        images: of prompts that show pictures, as of :func:`dpsjax.policy.picture_batch`.

    Returns:
        ``(log_probs, entropy)``, float32, zero where ``mask`` is False.

    Raises:
        TypeError: an argument is something else, or an array of another kind.
        ValueError: shapes do not fit; ``chunk`` is not positive, ``temperature`` not above 0, or
            ``tokens`` has another rank than 2 or 3. Tokens outside the vocabulary are
            ``checkify`` errors under ``jit``.
    """
    prompt, prompt_mask = require_prompt(model, prompt, prompt_mask, images)
    checks.require_integers(**checks.given(chunk=chunk))
    axes = "B T" if getattr(tokens, "ndim", 3) == 2 else "B G T"
    checks.require_arrays(
        prompt=(prompt, "int B P"), tokens=(tokens, f"int {axes}"), mask=(mask, f"bool {axes}")
    )
    _require_ids(model, tokens=tokens)
    checks.require_scalar(0.0, jnp.inf, temperature=temperature)
    checks.require(
        temperature > 0, "temperature must be above 0, got {temperature}", temperature=temperature
    )
    ways = batch_ways() if tokens.shape[0] % batch_ways() == 0 else 1
    if chunk is None:
        chunk = _default_chunk(tokens.size // ways, model.config.vocab_size)
    if chunk <= 0:
        raise ValueError(f"chunk={chunk} must be positive: tokens whose logits exist at a time")
    shape = tokens.shape
    tokens = jnp.asarray(tokens).reshape(shape[0], -1, shape[-1])
    past = encode_prompt(model, prompt, prompt_mask, images)
    first = last_position(model, prompt, prompt_mask, images)
    inputs, positions = response_inputs(prompt, first, tokens)
    size = shape[-1]
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    hidden, _ = model.segment(inputs, positions, causal, (past,))
    scale = jnp.asarray(temperature, jnp.float32)
    # a row for each device: chunks of it are chunks of what the device holds
    rows = constrain(hidden.reshape(ways, -1, hidden.shape[-1]), "bsd")
    log_probs, entropy = _chunked(model, rows, tokens.reshape(ways, -1), scale, chunk)
    zero = jnp.zeros((), jnp.float32)
    return (
        jnp.where(mask, log_probs.reshape(shape), zero),
        jnp.where(mask, entropy.reshape(shape), zero),
    )
