"""Each selector crossed with each contract."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import dpsjax
from dpsjax.selectors import ChainState
from tests.selectors.table import COSTLY, REPRESENTATIVE, SELECTORS

N, B, G, STEPS = 64, 8, 4, 5

every_selector = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY)) for name in SELECTORS],
)
every_selector_but_most_slowly = pytest.mark.parametrize(
    "name",
    [
        name if name in REPRESENTATIVE else pytest.param(name, marks=pytest.mark.slow)
        for name in SELECTORS
    ],
)


def skill(num_prompts):
    """Solve probabilities of made-up prompts: some impossible, some easy."""
    return jnp.clip(jnp.linspace(-0.3, 1.3, num_prompts), 0, 1).astype(jnp.float32)


def rollout(key, index, num_prompts):
    """Seeded outcomes of a batch, the same whatever runs them."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    probability = skill(num_prompts)[jnp.maximum(index, 0)]
    draws = jax.vmap(lambda k: jax.random.uniform(k, (G,), jnp.float32))(keys)
    passes = (draws < probability[:, None]).sum(axis=1, dtype=jnp.int32)
    return passes, jnp.full(index.shape, G, jnp.int32)


def one_round(selector, key, state, axis_name=None):
    """Select, roll out, observe."""
    select_key, rollout_key = jax.random.split(key)
    batch, state = dpsjax.select(selector, select_key, state, B, axis_name=axis_name)
    passes, trials = rollout(rollout_key, batch.index, N)
    accept, state = dpsjax.observe(
        selector, state, batch.index, passes, trials, axis_name=axis_name
    )
    return state, (batch, accept)


def run(selector, step, state, seed=0):
    """Several rounds by a given step function."""
    outputs = []
    for t in range(STEPS):
        state, out = step(jax.random.fold_in(jax.random.key(seed), t), state)
        outputs.append(out)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)


@functools.cache
def build(name):
    """A selector with its jitted calls: select(key, state), observe(state, ...)."""
    selector = SELECTORS[name]()
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda *args: dpsjax.observe(selector, *args))
    return selector, select, observe


@functools.cache
def jitted_round(name):
    selector = build(name)[0]
    return jax.jit(lambda key, state: one_round(selector, key, state))


@functools.cache
def reference(name, seed=0):
    """What every other way of running must reproduce: one jitted round at a time."""
    selector = build(name)[0]
    return run(selector, jitted_round(name), selector.init(N), seed)


def same(left, right):
    """The same selections bit for bit, the same state up to rounding."""
    (left_state, (left_batch, left_accept)) = left
    (right_state, (right_batch, right_accept)) = right
    np.testing.assert_array_equal(left_batch.index, right_batch.index)
    np.testing.assert_array_equal(left_accept, right_accept)
    chex.assert_trees_all_close(left_batch.weight, right_batch.weight, rtol=1e-6)
    chex.assert_trees_all_close(left_state, right_state, rtol=1e-6, atol=1e-9)


@every_selector_but_most_slowly
def test_eager(name):
    selector = build(name)[0]
    eager = run(selector, lambda key, state: one_round(selector, key, state), selector.init(N))
    same(eager, reference(name))


@every_selector_but_most_slowly
def test_scan(name):
    selector = build(name)[0]
    keys = jnp.stack([jax.random.fold_in(jax.random.key(0), t) for t in range(STEPS)])

    def body(state, key):
        return one_round(selector, key, state)

    same(jax.jit(lambda s: jax.lax.scan(body, s, keys))(selector.init(N)), reference(name))


@every_selector_but_most_slowly
def test_vmap_over_seeds(name):
    selector = build(name)[0]
    step = jax.jit(jax.vmap(lambda key, state: one_round(selector, key, state)))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), selector.init(N))
    outputs = []
    for t in range(STEPS):
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), t) for seed in range(3)])
        states, out = step(keys, states)
        outputs.append(out)
    outputs = jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)
    for seed in range(3):
        state = jax.tree.map(lambda leaf, s=seed: leaf[s], states)
        out = jax.tree.map(lambda leaf, s=seed: leaf[:, s], outputs)
        same((state, out), reference(name, seed))


def prompt_specs(state, axis_name):
    """Shard every leaf whose last axis is the prompt axis; scalars are replicated."""

    def spec(leaf):
        sharded = leaf.ndim > 0 and leaf.shape[-1] == N
        return PartitionSpec(*[None] * (leaf.ndim - 1), axis_name) if sharded else PartitionSpec()

    return jax.tree.map(spec, state)


@every_selector
def test_shard_map_on_eight_devices(name):
    selector = build(name)[0]
    state = selector.init(N)
    specs = prompt_specs(state, "prompt")
    step = jax.jit(
        jax.shard_map(
            lambda key, state: one_round(selector, key, state, "prompt"),
            mesh=Mesh(np.array(jax.devices()[:8]), ("prompt",)),
            in_specs=(PartitionSpec(), specs),
            out_specs=(specs, PartitionSpec()),
            check_vma=False,
        )
    )
    same(run(selector, step, state), reference(name))


@every_selector_but_most_slowly
def test_automatic_sharding_selects_the_same(name):
    selector = build(name)[0]
    state = selector.init(N)
    mesh = Mesh(np.array(jax.devices()[:8]), ("prompt",))
    shardings = jax.tree.map(
        lambda spec: jax.sharding.NamedSharding(mesh, spec), prompt_specs(state, "prompt")
    )
    step = jax.jit(
        lambda key, state: one_round(selector, key, state), out_shardings=(shardings, None)
    )
    same(run(selector, step, jax.device_put(state, shardings)), reference(name))


@every_selector_but_most_slowly
def test_one_trace_and_stable_state_type(name):
    selector = build(name)[0]
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda k, s: one_round(selector, k, s), n=1))
    state = selector.init(N)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    for t in range(3):
        state, _ = step(jax.random.fold_in(jax.random.key(0), t), state)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == shapes
    assert isinstance(state, ChainState)


@every_selector
def test_init_needs_no_memory_under_eval_shape(name):
    selector = build(name)[0]
    shapes = jax.eval_shape(lambda: selector.init(10**9))
    assert shapes.active.shape == (10**9,)


@every_selector
def test_no_repeats_and_ids_in_range(name):
    _, (batch, accept) = reference(name)
    for index, valid in zip(batch.index, batch.valid, strict=True):
        assert valid.all() and len(set(index.tolist())) == B
        assert index.min() >= 0 and index.max() < N
    assert accept.dtype == bool and batch.index.dtype == np.int32
    assert batch.weight.dtype == np.float32


@every_selector
def test_small_pool_is_padded(name):
    selector, select, _ = build(name)
    batch, _ = select(jax.random.key(0), selector.init(3))
    assert sorted(batch.index[:3].tolist()) == [0, 1, 2]
    assert (batch.index[3:] == -1).all() and not batch.valid[3:].any()
    assert (batch.weight[3:] == 0).all()


@every_selector
def test_padding_changes_nothing(name):
    selector, _, observe = build(name)
    state = selector.init(N)
    index = jnp.array([5, 9, 2], jnp.int32)
    passes, trials = jnp.array([0, 2, 4], jnp.int32), jnp.full(3, 4, jnp.int32)
    _, plain = observe(state, index, passes, trials)
    spread = jnp.array([-1, 5, -1, 9, 2], jnp.int32)
    accept, padded = observe(
        state, spread, jnp.array([3, 0, 1, 2, 4], jnp.int32), jnp.full(5, 4, jnp.int32)
    )
    chex.assert_trees_all_close(plain, padded, rtol=1e-12)
    assert not accept[0] and not accept[2]


@every_selector
def test_repeated_ids_merge_their_counts(name):
    selector, _, observe = build(name)
    state = selector.init(N)

    def seen(index, passes, trials):
        return observe(state, *(jnp.array(column, jnp.int32) for column in (index, passes, trials)))

    _, once = seen([7, 3, -1], [4, 2, 0], [8, 4, 0])
    accept, twice = seen([7, 3, 7], [4, 2, 0], [4, 4, 4])
    chex.assert_trees_all_close(once, twice, rtol=1e-12)
    assert accept[0] == accept[2]


@every_selector
def test_weighted_sums_ignore_padding(name):
    """A gradient summed with the batch's weights is the same whatever fills the padding."""
    selector, select, observe = build(name)
    batch, state = select(jax.random.key(1), selector.init(3))
    passes, trials = rollout(jax.random.key(2), batch.index, 3)
    accept, _ = observe(state, batch.index, passes, trials)

    def loss(theta, filler):
        per_prompt = jnp.where(batch.index >= 0, theta * batch.index.astype(jnp.float32), filler)
        return (per_prompt * jnp.where(accept, batch.weight, 0)).sum()

    slope = jax.grad(loss)
    assert slope(jnp.float32(2), jnp.float32(0)) == slope(jnp.float32(2), jnp.float32(1e9))


@every_selector
def test_equals_are_drawn_fairly(name):
    """At the start all prompts are equal: each is drawn equally often, at 5 sigma."""
    selector = build(name)[0]
    state = selector.init(N)
    draws = 2000
    keys = jax.random.split(jax.random.key(3), draws)
    batches = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, B)[0].index))(keys)
    counts = np.bincount(np.asarray(batches).ravel(), minlength=N)
    expected = draws * B / N
    sigma = np.sqrt(draws * (B / N) * (1 - B / N))
    assert abs(counts - expected).max() < 5 * sigma


@every_selector
def test_same_key_same_batch_other_key_other_batch(name):
    selector, select, _ = build(name)
    state = selector.init(N)
    first, again, other = (select(jax.random.key(seed), state)[0].index for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


@every_selector
def test_empty_observation_is_a_step(name):
    selector, _, observe = build(name)
    nothing = jnp.zeros(0, jnp.int32)
    accept, _ = observe(selector.init(N), nothing, nothing, nothing)
    assert accept.shape == (0,)
