"""Sampling: a prompt is prefilled once for all its rollouts; the loop ends when all rows have."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dpsjax import checks
from dpsjax.policy.log_probs import encode_prompt, last_position, require_prompt
from dpsjax.policy.sharding import gathered, is_matrix
from dpsjax.policy.transformer import Block, Policy
from dpsjax.policy.vision import Images
from dpsjax.types import Array, Bool, Float, Int, Key, PyTree

__all__ = ["Rollouts", "Sampling", "generate", "truncate_logits"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How responses are drawn. Static: each setting compiles once.

    Attributes:
        max_tokens: ``T``, longest response.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep the ``k`` most likely tokens; 0 for all.
        top_p: keep the fewest tokens with at least this total probability; 1 for all.
        stop_ids: tokens that end a response; they belong to it.
        pad_id: fills a row after its end.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0

    def __post_init__(self):
        checks.require_integers(max_tokens=self.max_tokens, top_k=self.top_k, pad_id=self.pad_id)
        checks.require_real(temperature=self.temperature, top_p=self.top_p)
        checks.require_items(int, "a token id", stop_ids=self.stop_ids)
        if self.pad_id < 0 or min(self.stop_ids, default=0) < 0:
            raise ValueError(f"pad_id={self.pad_id}, stop_ids={self.stop_ids} must not be negative")
        if self.max_tokens <= 0:
            raise ValueError(f"max_tokens={self.max_tokens} must be positive")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature={self.temperature} must be 0 (greedy) or positive, finite"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} must be 0 (off) or positive")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")


class Rollouts(NamedTuple):
    """Sampled responses.

    Attributes:
        tokens: int32 ``[B, G, T]``, ``pad_id`` after the end.
        mask: bool ``[B, G, T]``, True up to and with the stop token.
        log_probs: float32 ``[B, G, T]``, zero where ``mask`` is False.
        steps: int32, decoding steps that were run (at most ``T``, in each of the waves).
    """

    tokens: Int[Array, "B G T"]
    mask: Bool[Array, "B G T"]
    log_probs: Float[Array, "B G T"]
    steps: Int[Array, ""]


def truncate_logits(
    logits: Float[Array, "*rows V"], top_k: int, top_p: float
) -> Float[Array, "*rows V"]:
    """Set logits outside the top-k and then the top-p set to ``-inf``.

    Top-p (Holtzman et al. 2020) applies to what top-k left over, renormalised. The set is exact:
    tokens by falling probability until the total reaches ``top_p``; tokens tied with the last one
    kept are kept. Nothing is sorted for it: see ``_nucleus``.

    Raises:
        TypeError: ``logits`` is no array of floats, or ``top_k`` or ``top_p`` no number.
        ValueError: ``top_k`` is negative, or ``top_p`` not in (0, 1].
    """
    _require_logits(logits)
    checks.require_counts(least=0, top_k=top_k)
    checks.require_real(top_p=top_p)
    checks.require_setting(0 < top_p <= 1, "top_p", top_p, "above 0, at most 1")
    if 0 < top_k < logits.shape[-1]:
        cut = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= cut, logits, -jnp.inf)
    if top_p < 1:
        logits = jnp.where(_nucleus(logits, top_p), logits, -jnp.inf)
    return logits


def _require_logits(logits) -> None:
    kind = isinstance(logits, jax.Array | np.ndarray) and jnp.issubdtype(logits.dtype, jnp.floating)
    if not kind:
        raise TypeError(f"logits={checks.shown(logits)} must be an array of floats")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have an axis that is not empty, got {logits.shape}")


def _nucleus(logits: Float[Array, "*rows V"], top_p: float) -> Bool[Array, "*rows V"]:
    """The fewest tokens with at least ``top_p`` of the probability.

    They are those above a cut, which is found by bisection: of positive floats, the bits, read as
    integers, are in the same order, so as many halvings as there are bits find it exactly. Each
    sums the vocabulary once, where a sort would move it many times.
    """
    wide = logits if logits.dtype == jnp.float64 else logits.astype(jnp.float32)
    weights = jnp.exp(wide - wide.max(axis=-1, keepdims=True))
    words = jnp.uint64 if weights.dtype == jnp.float64 else jnp.uint32
    bits = jax.lax.bitcast_convert_type(weights, words)
    wanted = weights.sum(axis=-1, keepdims=True) * jnp.asarray(top_p, weights.dtype)
    one = jax.lax.bitcast_convert_type(jnp.ones((), weights.dtype), words)

    def halve(_: Array, span: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = span  # the tokens from low on are enough, those from high on are not
        middle = low + (high - low) // jnp.asarray(2, words)
        above = jnp.where(bits >= middle, weights, jnp.zeros((), weights.dtype))
        enough = above.sum(axis=-1, keepdims=True) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    span = jnp.zeros(wanted.shape, words), jnp.full(wanted.shape, one + jnp.asarray(1, words))
    low, _ = jax.lax.fori_loop(0, jnp.finfo(weights.dtype).bits - 2, halve, span)
    return bits >= low


def _pick(weights: Array, uniform: Array) -> Array:
    """First index at which the running total of ``weights [..., n]`` exceeds ``uniform`` of it."""
    size = weights.shape[-1]
    below = jnp.triu(jnp.ones((size, size), weights.dtype))  # a running total as a product
    total = jnp.einsum("...i,ij->...j", weights, below, precision=jax.lax.Precision.HIGHEST)
    hit = (total > uniform[..., None] * total[..., -1:]) & (weights > 0)
    # rounding may leave no hit: then the likeliest, never an excluded token
    return jnp.where(hit.any(axis=-1), hit.argmax(axis=-1), weights.argmax(axis=-1))


def draw(row_keys: Array, step: Array, weights: Float[Array, "B G V"]) -> Int[Array, "B G"]:
    """One index per row, in proportion to ``weights``; a function of the row's key and the step.

    Inverts the cumulative distribution in two levels (a block of about ``sqrt(V)`` tokens, then a
    token in it) with one uniform number each: two random numbers per row instead of Gumbel noise
    for the whole vocabulary, which costs as much as the output head itself.
    """
    batch, group, size = weights.shape
    width = 1 << ((size - 1).bit_length() + 1) // 2
    blocks = jnp.pad(weights, [(0, 0), (0, 0), (0, -size % width)])
    blocks = blocks.reshape(batch, group, -1, width)

    def uniforms(row_key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(row_key, step), (2,), jnp.float32)

    uniform = jax.vmap(jax.vmap(uniforms))(row_keys)
    block = _pick(blocks.sum(axis=-1), uniform[..., 0])
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=2)[:, :, 0]
    token = block * width + _pick(inside, uniform[..., 1])
    return token.astype(jnp.int32)


def _choose(
    row_keys: Array, logits: Array, sampling: Sampling, step: Array, greedy: bool | Array
) -> tuple[Array, Array]:
    """Draw one token per row of tempered ``logits [B, G, V]``, with its log-probability.

    The likeliest token where ``greedy``: of all rows, or an array ``[G]``.
    """
    peak = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    normaliser = peak[..., 0] + jnp.log(weights.sum(axis=-1))
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if greedy is True:
        token = likeliest
    else:
        kept = truncate_logits(logits, sampling.top_k, sampling.top_p) > -jnp.inf
        drawn = draw(row_keys, step, jnp.where(kept, weights, jnp.zeros((), weights.dtype)))
        token = drawn if greedy is False else jnp.where(greedy[None], likeliest, drawn)
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return token, chosen - normaliser


class _Loop(NamedTuple):
    """What a decoding step passes on: the next input ``token``, and its own keys as ``new``."""

    step: Array
    token: Array
    done: Array
    cache: PyTree
    new: PyTree
    rollouts: Rollouts


def _write(array: Array, value: Array, step: Array, axis: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, value.astype(array.dtype), step, axis)


def _empty_cache(past: Block, group: int, size: int) -> PyTree:
    """Zeros ``[(L,) B, m, G, T, h]`` per layer for the responses, of exactly their length."""

    def one(leaf: Array) -> Array:
        *lead, heads, _, head_dim = leaf.shape
        return jnp.zeros((*lead, heads, group, size, head_dim), leaf.dtype)

    return jax.tree.map(one, past.layers)


def _compute_copy(model: Policy) -> Policy:
    """The model with matrices cast to the compute dtype, and gathered, once, not at each step."""
    graph, params = nnx.split(model)

    def cast(path: tuple, leaf: Array) -> Array:
        return leaf.astype(model.compute.dtype) if is_matrix(path) else leaf

    params = jax.tree_util.tree_map_with_path(cast, params)
    if model.compute.decode_weights == "gathered":
        params = gathered(params)
    return nnx.merge(graph, params)


def generate(
    model: Policy,
    key: Key,
    prompt: Int[Array, "B P"],
    prompt_mask: Bool[Array, "B P"],
    sampling: Sampling,
    group: int = 1,
    temperatures: Float[Array, " G"] | None = None,
    images: Images | None = None,
) -> Rollouts:
    """Sample ``group`` responses to every prompt.

    Pure; call it under ``jax.jit`` with ``sampling`` and ``group`` static. Shapes are static and
    the loop ends early once every row has stopped. Randomness depends on the key, the row
    ``b * G + g`` and the step alone, so neither the number of devices nor the other rows change a
    response.

    ``log_probs`` are those of the tempered distribution *before* top-k and top-p truncation, so
    that they agree with ``token_log_probs`` at the same temperature. At temperature 0 they are
    taken at temperature 1.

    Args:
        model: the policy.
        key: fresh for every call.
        prompt: int32, left-padded.
        prompt_mask: True on real tokens; the last column is always real.
        sampling: how to draw.
        group: ``G``, rollouts per prompt.
        temperatures: of the rollouts of a prompt, one each, in place of ``sampling.temperature``;
            traced, so that other ones compile nothing. What is negative counts as 0.
        images: of prompts that show pictures, as of :func:`dpsjax.policy.picture_batch`.

    Returns:
        ``Rollouts``.

    Raises:
        TypeError: an argument is something else, or an array of another kind.
        ValueError: shapes do not fit; ``group`` is not positive, or the model's ``compute.waves``
            do not divide it; ``temperatures`` are not ``G``. Prompts outside the vocabulary or
            without a last token are ``checkify`` errors under ``jit``.
    """
    checks.require_key(key=key)
    checks.require_type(Sampling, "a Sampling", sampling=sampling)
    checks.require_integers(group=group)
    prompt, prompt_mask = require_prompt(model, prompt, prompt_mask, images)
    waves = model.compute.waves
    if group <= 0:
        raise ValueError(f"group={group} must be positive: rollouts per prompt")
    if group % waves != 0:
        raise ValueError(f"waves={waves} must divide group={group}, the rollouts per prompt")
    if temperatures is not None:
        checks.require_arrays(temperatures=(temperatures, "float G"))
        if temperatures.shape != (group,):
            raise ValueError(
                f"temperatures are of shape {temperatures.shape}: give one each to group={group}"
            )
    model = _compute_copy(model)
    past, batch = encode_prompt(model, prompt, prompt_mask, images), prompt.shape[0]
    last = prompt[:, -1], last_position(model, prompt, prompt_mask, images)
    rows = jnp.arange(batch * group, dtype=jnp.uint32).reshape(batch, group)
    row_keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))(key, rows)
    if waves == 1:
        return _decode(model, past, last, row_keys, sampling, temperatures)

    def wave(turn: tuple[Array, Array | None]) -> Rollouts:
        return _decode(model, past, last, turn[0], sampling, turn[1])

    turns = jnp.moveaxis(row_keys.reshape(batch, waves, -1), 1, 0)
    own = None if temperatures is None else temperatures.reshape(waves, -1)
    out = jax.lax.map(wave, (turns, own))

    def join(leaf: Array) -> Array:
        return jnp.moveaxis(leaf, 0, 1).reshape(batch, group, *leaf.shape[3:])

    return Rollouts(join(out.tokens), join(out.mask), join(out.log_probs), out.steps.sum())


def _decode(
    model: Policy,
    past: Block,
    last: tuple[Array, Array],
    row_keys: Array,
    sampling: Sampling,
    temperatures: Array | None,
) -> Rollouts:
    """Responses to prefilled prompts, one for each of ``row_keys [B, G]``.

    ``last`` are the prompts' last tokens ``[B]`` and their positions.
    """
    weights = model.layer_weights()
    (batch, group), size = row_keys.shape, sampling.max_tokens
    first = last[1].reshape(batch, 1, 1)
    slots = jnp.arange(size, dtype=jnp.int32)
    stop_ids = jnp.asarray(sampling.stop_ids, jnp.int32).reshape(1, 1, -1)
    if temperatures is None:
        greedy, scale = sampling.temperature == 0, jnp.float32(sampling.temperature or 1.0)
    else:
        greedy = temperatures <= 0
        scale = jnp.where(greedy, 1, temperatures).astype(jnp.float32)[None, :, None]

    def step_on(loop: _Loop) -> _Loop:
        step, out = loop.step, loop.rollouts
        positions = jnp.broadcast_to(first + step, (batch, group, 1))
        # the last step's keys are written only now, before any read: XLA then writes in place
        cache = jax.tree.map(
            lambda old, part: _write(old, part, step - 1, -2), loop.cache, loop.new
        )
        seen = Block(cache, slots < step)
        see = jnp.ones((1, 1, 1, 1), bool)
        token = loop.token[..., None]
        hidden, new = model.segment(token, positions, see, (past, seen), weights)
        logits = model.logits(hidden[:, :, 0]) / scale
        token, log_prob = _choose(row_keys, logits, sampling, step, greedy)
        alive = ~loop.done
        token = jnp.where(alive, token, jnp.asarray(sampling.pad_id, jnp.int32))
        log_prob = jnp.where(alive, log_prob, jnp.zeros((), jnp.float32))
        done = loop.done | (token[..., None] == stop_ids).any(axis=-1)
        out = Rollouts(
            _write(out.tokens, token[..., None], step, 2),
            _write(out.mask, alive[..., None], step, 2),
            _write(out.log_probs, log_prob[..., None], step, 2),
            step + 1,
        )
        return _Loop(step + 1, token, done, cache, new, out)

    shape = (batch, group, size)
    start = Rollouts(
        jnp.full(shape, sampling.pad_id, jnp.int32),
        jnp.zeros(shape, bool),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((), jnp.int32),
    )
    loop = _Loop(
        jnp.zeros((), jnp.int32),
        jnp.broadcast_to(last[0][:, None], (batch, group)),
        jnp.zeros((batch, group), bool),
        _empty_cache(past, group, size),
        _empty_cache(past, group, 1),
        start,
    )
    going = lambda loop: (loop.step < size) & ~loop.done.all()  # noqa: E731
    return jax.lax.while_loop(going, step_on, loop).rollouts
