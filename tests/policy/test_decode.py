"""Sampling: agreement with the full forward pass, exact truncation, early exit, row-wise keys."""

import dataclasses
import functools
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpsjax.policy import Compute, Policy, Sampling, generate, shardings, token_log_probs
from dpsjax.policy.decode import truncate_logits
from tests.oracles import transformer as oracle
from tests.policy.conftest import CONFIG, VARIANTS, left_padded, make_policy

run = jax.jit(generate, static_argnames=("sampling", "group"))
score = jax.jit(token_log_probs, static_argnames="chunk")
SAMPLING = Sampling(max_tokens=9, stop_ids=(1, 2), pad_id=0)
LENGTHS = (5, 1, 3, 4)


@jax.jit
def full_logits(policy, tokens, mask):
    positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    return policy.logits(policy(tokens, positions, mask))


@functools.cache
def prompts(vocab=CONFIG.vocab_size):
    return left_padded(LENGTHS, 5, vocab)


@pytest.fixture(scope="module")
def rollouts(policy):
    return run(policy, jax.random.key(7), *prompts(), SAMPLING, group=3)


@pytest.mark.parametrize(("name", "temperature"), [("qwen2", 1.0), ("qwen3", 0.6)])
def test_sampled_log_probs_are_those_of_a_full_forward_pass(name, temperature, compute_scan):
    compute = compute_scan if name == "qwen3" else None
    policy = make_policy(VARIANTS[name], compute)
    sampling = Sampling(max_tokens=9, temperature=temperature, top_k=7, stop_ids=(1,))
    out = run(policy, jax.random.key(1), *prompts(), sampling, group=2)
    scale = jnp.float32(temperature)
    again, _ = score(policy, *prompts(), out.tokens, out.mask, temperature=scale, chunk=4)
    assert float(out.log_probs.min()) < -1
    np.testing.assert_allclose(out.log_probs, again, atol=1e-4)


def test_a_bfloat16_sampler_rounds_neither_norms_nor_biases():
    config = dataclasses.replace(VARIANTS["qwen2"], layers=4, qk_norm=True)
    exact = make_policy(config, Compute(dtype="bfloat16"))

    def cast(path, leaf):
        matrix = len(path[-2].key.rsplit("_")[-1]) > 1 and "bias" not in path[-2].key
        return leaf if matrix else leaf.astype(jnp.bfloat16).astype(jnp.float32)

    graph, params = nnx.split(exact)
    rounded = nnx.merge(graph, jax.tree_util.tree_map_with_path(cast, params))
    sampling, apart = Sampling(max_tokens=32), []
    for policy in (exact, rounded):
        out = run(policy, jax.random.key(1), *prompts(), sampling, group=16)
        again, _ = score(policy, *prompts(), out.tokens, out.mask)
        apart.append(float(jnp.abs(out.log_probs - again).mean()))
    # to one of the two policies, a sampler that rounded would do nothing
    assert apart[1] > 0 and apart[0] < 1.2 * apart[1], apart


def test_stop_token_is_the_last_real_token_and_padding_follows(rollouts):
    tokens, mask = np.asarray(rollouts.tokens), np.asarray(rollouts.mask)
    ended = 0
    for row, real in zip(tokens.reshape(-1, 9), mask.reshape(-1, 9), strict=True):
        length = real.sum()
        assert real[:length].all() and (row[length:] == 0).all()
        assert not np.isin(row[: length - 1], (1, 2)).any()
        if length < 9:
            assert row[length - 1] in (1, 2)
            ended += 1
    assert 0 < ended < len(tokens.reshape(-1, 9))
    assert (np.asarray(rollouts.log_probs)[~mask] == 0).all()


def test_left_padding_does_not_change_a_response(policy, rollouts):
    prompt, mask = prompts()
    wide = jnp.concatenate([jnp.full((4, 2), 9, jnp.int32), prompt], axis=1)
    wide_mask = jnp.concatenate([jnp.zeros((4, 2), bool), mask], axis=1)
    other = run(policy, jax.random.key(7), wide, wide_mask, SAMPLING, group=3)
    np.testing.assert_array_equal(other.tokens, rollouts.tokens)
    np.testing.assert_allclose(other.log_probs, rollouts.log_probs, atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_after_it(policy, rollouts):
    prompt, mask = prompts()
    half = run(policy, jax.random.key(7), prompt[:2], mask[:2], SAMPLING, group=3)
    np.testing.assert_array_equal(half.tokens, rollouts.tokens[:2])


def test_rows_steps_and_keys_draw_differently(policy):
    prompt, mask = (jnp.repeat(x[:1], 8, axis=0) for x in prompts())
    sampling = Sampling(max_tokens=8, temperature=3.0)
    one = np.asarray(run(policy, jax.random.key(0), prompt, mask, sampling, group=8).tokens)
    two = np.asarray(run(policy, jax.random.key(1), prompt, mask, sampling, group=8).tokens)
    assert len(np.unique(one.reshape(64, 8), axis=0)) == 64
    assert (one != two).mean() > 0.5


def test_greedy_takes_the_most_likely_token_and_needs_no_key(policy):
    sampling = Sampling(max_tokens=6, temperature=0.0)
    out = run(policy, jax.random.key(0), *prompts(), sampling, group=2)
    other = run(policy, jax.random.key(1), *prompts(), sampling, group=2)
    np.testing.assert_array_equal(out.tokens, other.tokens)
    np.testing.assert_array_equal(out.tokens[:, 0], out.tokens[:, 1])
    prompt, mask = prompts()
    whole = jnp.concatenate([prompt, out.tokens[:, 0]], axis=1)
    seen = jnp.concatenate([mask, out.mask[:, 0]], axis=1)
    logits = full_logits(policy, whole, seen)
    np.testing.assert_array_equal(logits[:, 4:-1].argmax(-1), out.tokens[:, 0])
    best = jax.nn.log_softmax(logits[:, 4:-1]).max(-1)
    np.testing.assert_allclose(best, out.log_probs[:, 0], atol=1e-4)


def test_rollouts_of_a_prompt_may_have_their_own_temperatures(policy):
    traces, given = [], prompts()

    @jax.jit
    def at(temperatures):
        traces.append(1)
        return generate(policy, jax.random.key(5), *given, SAMPLING, 3, temperatures)

    mixed = at(jnp.float32([1.0, 0.0, 0.5]))
    others = at(jnp.float32([0.25, 1.0, 0.0]))
    assert len(traces) == 1

    def alone(temperature):
        sampling = dataclasses.replace(SAMPLING, temperature=temperature)
        return run(policy, jax.random.key(5), *prompts(), sampling, group=3)

    for out, place, temperature in (
        (mixed, 0, 1.0),
        (mixed, 1, 0.0),
        (mixed, 2, 0.5),
        (others, 0, 0.25),
        (others, 2, 0.0),
    ):
        want = alone(temperature)
        np.testing.assert_array_equal(out.tokens[:, place], want.tokens[:, place])
        np.testing.assert_allclose(out.log_probs[:, place], want.log_probs[:, place], atol=1e-5)


def test_temperatures_are_one_a_rollout(policy):
    with pytest.raises(ValueError, match=r"temperatures are of shape \(3,\).*group=2"):
        generate(policy, jax.random.key(5), *prompts(), SAMPLING, 2, jnp.ones(3, jnp.float32))


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (6, 0.8)])
def test_first_tokens_follow_the_truncated_distribution(policy, top_k, top_p):
    prompt, mask = (jnp.repeat(x[:1], 16, axis=0) for x in prompts())
    sampling = Sampling(max_tokens=1, temperature=1.3, top_k=top_k, top_p=top_p)
    draws = []
    for seed in range(4):
        out = run(policy, jax.random.key(seed), prompt, mask, sampling, group=256)
        draws.append(np.asarray(out.tokens).reshape(-1))
    counts = np.bincount(np.concatenate(draws), minlength=CONFIG.vocab_size)
    logits = np.asarray(full_logits(policy, prompt[:1], mask[:1])[0, -1])
    probs = oracle.truncated_probs(logits, 1.3, top_k, top_p)
    assert (counts[probs == 0] == 0).all()
    expected = probs[probs > 0] * counts.sum()
    statistic = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert statistic <= freedom + 5 * np.sqrt(2 * freedom) + 1e-9


def test_truncation_is_exact_for_every_setting():
    logits = np.random.default_rng(0).normal(size=(20, 11)).astype(np.float32) * 2
    for top_k in (0, 1, 3, 11, 50):
        for top_p in (0.05, 0.5, 0.9, 0.999, 1.0):
            kept = np.isfinite(np.asarray(truncate_logits(jnp.asarray(logits), top_k, top_p)))
            for row in range(20):
                truth = oracle.truncated_probs(logits[row], 1.0, top_k, top_p) > 0
                np.testing.assert_array_equal(kept[row], truth)


@pytest.mark.parametrize("kind", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_a_large_vocabulary_is_cut_where_the_sort_cuts_it(kind):
    rng = np.random.default_rng(0)
    steep = rng.normal(size=(4, 3000)) * np.array([[0.1], [1.0], [4.0], [30.0]])
    logits = jnp.asarray(steep, kind)
    for top_p in (1e-6, 0.3, 0.95, 1 - 1e-6):
        kept = np.isfinite(np.asarray(truncate_logits(logits, 0, top_p), np.float64))
        for row in range(4):
            exact = np.asarray(logits[row], np.float64)
            truth = oracle.truncated_probs(exact, 1.0, 0, top_p) > 0
            # of tied tokens the oracle keeps those that it needs, we keep all
            truth |= exact == exact[truth].min()
            if kind == jnp.float64:
                np.testing.assert_array_equal(kept[row], truth)
            else:  # sums of float32 decide alike but where two sets differ by their rounding
                other = np.exp(exact - exact.max())
                weigh = other / other.sum()
                assert abs(weigh[kept[row]].sum() - weigh[truth].sum()) < 2e-6


def test_ties_and_impossible_tokens():
    logits = jnp.asarray([[0.0, 2.0, 2.0, 2.0, -jnp.inf], [1.0] * 5], jnp.float32)
    kept = np.isfinite(truncate_logits(logits, 0, 0.5))
    assert kept.tolist() == [[False, True, True, True, False], [True] * 5]
    nearly = np.isfinite(truncate_logits(logits, 0, float(np.nextafter(1, 0))))
    assert nearly.tolist() == [[True, True, True, True, False], [True] * 5]


def test_top_p_sorts_nothing():
    text = str(jax.make_jaxpr(lambda x: truncate_logits(x, 0, 0.9))(jnp.ones((2, 100))))
    assert "sort" not in text and "top_k" not in text


def test_the_benchmark_of_top_p_runs(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    record = importlib.import_module("top_p").measure(rows=2, vocab=500, top_p=0.9, repeats=1)
    assert record["differ"] == 0 and 0 < record["kept"] < 500


def test_decoding_stops_when_every_row_has_stopped(policy):
    sampling = Sampling(max_tokens=40, stop_ids=tuple(range(6)))
    out = run(policy, jax.random.key(0), *prompts(), sampling, group=2)
    longest = int(np.asarray(out.mask).sum(-1).max())
    assert int(out.steps) == longest < 40
    everything = Sampling(max_tokens=40, stop_ids=tuple(range(CONFIG.vocab_size)))
    assert int(run(policy, jax.random.key(0), *prompts(), everything, group=2).steps) == 1


def test_one_trace_per_shape(policy):
    traces = []

    @jax.jit
    def counted(policy, key, prompt, mask):
        traces.append(1)
        return generate(policy, key, prompt, mask, SAMPLING, 2).tokens

    for seed in range(3):
        counted(policy, jax.random.key(seed), *prompts())
    assert len(traces) == 1


def test_eight_devices_sample_what_one_device_samples(policy, rollouts):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    graph, params = nnx.split(policy)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        out = jax.jit(lambda p, *args: generate(nnx.merge(graph, p), *args, SAMPLING, 3))(
            jax.device_put(params, shardings(params, mesh)),
            jax.random.key(7),
            *(jax.device_put(x, rows) for x in prompts()),
        )
    np.testing.assert_array_equal(out.tokens, rollouts.tokens)
    np.testing.assert_allclose(out.log_probs, rollouts.log_probs, atol=1e-4)


def test_waves_sample_what_one_turn_samples(policy):
    params = nnx.split(policy)[1]
    outs, temperatures = [], jnp.float32([1.0, 0.5, 0.0, 2.0])
    for waves in (1, 2):
        turns = Policy(CONFIG, Compute(waves=waves), rngs=nnx.Rngs(0))
        turns = nnx.merge(nnx.split(turns)[0], params)
        outs.append(run(turns, jax.random.key(7), *prompts(), SAMPLING, 4, temperatures))
    np.testing.assert_array_equal(outs[1].tokens, outs[0].tokens)
    np.testing.assert_array_equal(outs[1].mask, outs[0].mask)
    np.testing.assert_allclose(outs[1].log_probs, outs[0].log_probs, atol=1e-5)
    # each turn ends with its own longest response
    longest = np.asarray(outs[0].mask).sum(-1).reshape(-1, 2, 2).max(axis=(0, 2))
    assert int(outs[1].steps) == longest.sum()
    with pytest.raises(ValueError, match="waves=2 must divide group=3"):
        generate(turns, jax.random.key(0), *prompts(), SAMPLING, 3)


def test_weights_that_stay_divided_sample_the_same(policy, rollouts):
    mesh = Mesh(np.array(jax.devices()).reshape(1, 4, 2), ("data", "fsdp", "tensor"))
    params, texts = nnx.split(policy)[1], {}
    for weights in ("gathered", "sharded"):
        other = Policy(CONFIG, Compute(decode_weights=weights), rngs=nnx.Rngs(0))
        graph = nnx.split(other)[0]
        call = jax.jit(lambda p, *args, g=graph: generate(nnx.merge(g, p), *args, SAMPLING, 3))
        with jax.set_mesh(mesh):
            compiled = call.lower(
                jax.device_put(params, shardings(params, mesh)), jax.random.key(7), *prompts()
            ).compile()
            out = compiled(
                jax.device_put(params, shardings(params, mesh)), jax.random.key(7), *prompts()
            )
        np.testing.assert_array_equal(out.tokens, rollouts.tokens)
        texts[weights] = compiled.as_text()
    gathers = {name: text.count(" all-gather(") for name, text in texts.items()}
    assert gathers["gathered"] != gathers["sharded"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_tokens": 1, "temperature": -1.0}, "temperature=-1.0"),
        ({"max_tokens": 1, "top_k": -1}, "top_k=-1"),
        ({"max_tokens": 1, "top_p": 0.0}, "top_p=0.0"),
    ],
)
def test_impossible_sampling_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_group_must_be_positive(policy):
    with pytest.raises(ValueError, match="group=0 must be positive"):
        generate(policy, jax.random.key(0), *prompts(), SAMPLING, 0)
