"""Each selector crossed with each contract."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import dpsjax
from dpsjax.selectors import ChainState
from dpsjax.selectors.pool import SHARED, prompt_axes
from tests.selectors.table import BY_GROUP, FEW, REPRESENTATIVE, SELECTORS, SLOW, data

N, B, G, STEPS = 64, 8, 4, 5

every_selector = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SELECTORS],
)


def by_default(names):
    """Every selector, those alone by default."""
    rows = [n if n in names else pytest.param(n, marks=pytest.mark.slow) for n in SELECTORS]
    return pytest.mark.parametrize("name", rows)


every_selector_but_most_slowly, every_selector_but_few_slowly = map(
    by_default, (REPRESENTATIVE, FEW)
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
    feedback, state = dpsjax.observe(
        selector, state, batch.index, passes, trials, axis_name=axis_name
    )
    return state, (batch, feedback)


def run(step, state, seed=0):
    """Several rounds by a given step function."""
    outputs = []
    for t in range(STEPS):
        state, out = step(jax.random.fold_in(jax.random.key(seed), t), state)
        outputs.append(out)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)


def start(selector, num_prompts=N):
    return selector.init(num_prompts, data(num_prompts))


@functools.cache
def build(name):
    """A selector with its jitted calls: select(key, state), observe(state, ...)."""
    selector = SELECTORS[name]()
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(
        lambda *args, **settings: dpsjax.observe(selector, *args, **settings),
        static_argnames="advance",
    )
    return selector, select, observe


@functools.cache
def jitted_round(name):
    selector = build(name)[0]
    return jax.jit(lambda key, state: one_round(selector, key, state))


@functools.cache
def reference(name, seed=0):
    """What every other way of running must reproduce: one jitted round at a time."""
    return run(jitted_round(name), start(build(name)[0]), seed)


def same(left, right):
    """The same selections bit for bit, the same state up to rounding."""
    (left_state, (left_batch, left_feedback)) = left
    (right_state, (right_batch, right_feedback)) = right
    np.testing.assert_array_equal(left_batch.index, right_batch.index)
    np.testing.assert_array_equal(left_batch.trials, right_batch.trials)
    np.testing.assert_array_equal(left_feedback.accept, right_feedback.accept)
    chex.assert_trees_all_close(left_batch.weight, right_batch.weight, rtol=1e-6)
    chex.assert_trees_all_close(left_feedback.weight, right_feedback.weight, rtol=1e-6)
    chex.assert_trees_all_close(left_state, right_state, rtol=1e-6, atol=1e-9)


@every_selector_but_few_slowly
@pytest.mark.parametrize("donate", [False, True])
def test_eager(name, donate):
    selector = build(name)[0]

    def step(key, state):
        select_key, rollout_key = jax.random.split(key)
        batch, state = dpsjax.select(selector, select_key, state, B)
        seen = batch.index, *rollout(rollout_key, batch.index, N)
        feedback, state = dpsjax.observe(selector, state, *seen, donate=donate)
        return state, (batch, feedback)

    same(run(step, start(selector)), reference(name))


@every_selector_but_few_slowly
def test_scan(name):
    selector = build(name)[0]
    keys = jnp.stack([jax.random.fold_in(jax.random.key(0), t) for t in range(STEPS)])

    def body(state, key):
        return one_round(selector, key, state)

    same(jax.jit(lambda s: jax.lax.scan(body, s, keys))(start(selector)), reference(name))


@every_selector_but_few_slowly
def test_vmap_over_seeds(name):
    selector = build(name)[0]
    step = jax.jit(jax.vmap(lambda key, state: one_round(selector, key, state)))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), start(selector))
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


def prompt_specs(selector):
    """Where each leaf of the state is cut: what the library says, nothing guessed."""

    def spec(axis):
        return PartitionSpec() if axis == SHARED else PartitionSpec(*[None] * axis, "prompt")

    return jax.tree.map(spec, prompt_axes(selector, data(N)))


def mesh():
    return Mesh(np.array(jax.devices()[:8]), ("prompt",))


@every_selector_but_most_slowly
def test_shard_map_on_eight_devices(name):
    selector = build(name)[0]
    specs = prompt_specs(selector)
    step = jax.jit(
        jax.shard_map(
            lambda key, state: one_round(selector, key, state, "prompt"),
            mesh=mesh(),
            in_specs=(PartitionSpec(), specs),
            out_specs=(specs, PartitionSpec()),
            check_vma=False,
        )
    )
    same(run(step, start(selector)), reference(name))


@every_selector_but_few_slowly
def test_automatic_sharding_selects_the_same(name):
    selector = build(name)[0]
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh(), spec), prompt_specs(selector))
    step = jax.jit(
        lambda key, state: one_round(selector, key, state), out_shardings=(shardings, None)
    )
    same(run(step, jax.device_put(start(selector), shardings)), reference(name))


@every_selector_but_most_slowly
def test_one_trace_and_stable_state_type(name):
    selector = build(name)[0]
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda k, s: one_round(selector, k, s), n=1))
    state = start(selector)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    for t in range(3):
        state, _ = step(jax.random.fold_in(jax.random.key(0), t), state)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == shapes
    assert isinstance(state, ChainState)


@every_selector
def test_any_number_of_prompts(name):
    """``init`` needs no memory under ``eval_shape``, and makes pools of one prompt."""
    selector = build(name)[0]
    known = {
        column: jax.ShapeDtypeStruct((10**9, *values.shape[1:]), values.dtype)
        for column, values in data(1).items()
    }
    shapes = jax.eval_shape(lambda known: selector.init(10**9, known), known)
    assert shapes.active.shape == (10**9,)
    for axis, leaf in zip(
        jax.tree.leaves(prompt_axes(selector, known)), jax.tree.leaves(shapes), strict=True
    ):
        assert axis == SHARED or leaf.shape[axis] == 10**9
    for size in (1, 2, 3):
        assert start(selector, size).active.shape == (size,)


@every_selector
def test_no_repeats_and_ids_in_range(name):
    _, (batch, feedback) = reference(name)
    for index, valid in zip(batch.index, batch.valid, strict=True):
        assert valid.all() and len(set(index.tolist())) == B
        assert index.min() >= 0 and index.max() < N
    assert feedback.accept.dtype == bool and batch.index.dtype == np.int32
    assert batch.weight.dtype == feedback.weight.dtype == np.float32


@every_selector
def test_small_pool_is_padded(name):
    selector, select, _ = build(name)
    batch, _ = select(jax.random.key(0), start(selector, 3))
    assert sorted(batch.index[:3].tolist()) == [0, 1, 2]
    assert (batch.index[3:] == -1).all() and not batch.valid[3:].any()
    assert (batch.weight[3:] == 0).all() and (batch.trials[3:] == 0).all()


def ints(*columns):
    return tuple(jnp.array(column, jnp.int32) for column in columns)


def rows(index, passes, trials):
    """Filled up to five with padding, so that one program serves many tests."""
    more = [0] * (5 - len(index))
    return ints([*index, *(-1 for _ in more)], [*passes, *more], [*trials, *more])


def close(left, right, rtol=1e-12):
    chex.assert_trees_all_close(left, right, rtol=rtol, atol=1e-14)


@every_selector
def test_padding_changes_nothing(name):
    selector, _, observe = build(name)
    state = start(selector)
    _, plain = observe(state, *ints([5, 9, 2], [0, 2, 4], [4, 4, 4]))
    spread = ints([-1, 5, -1, 9, 2], [3, 0, 1, 2, 4], [4] * 5)
    feedback, padded = observe(state, *spread)
    close(plain, padded)
    assert not feedback.accept[0] and not feedback.accept[2]
    assert feedback.weight[0] == feedback.weight[2] == 0


@every_selector
def test_repeated_ids_merge_their_counts(name):
    selector, _, observe = build(name)
    state = start(selector)
    feedback, twice = observe(state, *rows([7, 3, 7], [2, 2, 2], [4, 4, 4]))
    if name in BY_GROUP:  # the order of rows is all that does not matter
        _, once = observe(state, *rows([7, 7, 3], [2, 2, 2], [4, 4, 4]))
    else:
        _, once = observe(state, *rows([7, 3], [4, 2], [8, 4]))
    close(once, twice)
    assert feedback.accept[0] == feedback.accept[2] and feedback.weight[0] == feedback.weight[2]


@every_selector
def test_two_calls_in_a_step_are_one(name):
    """Rewards may arrive in parts: all but the last call leave the clock alone."""
    selector, _, observe = build(name)
    state = start(selector)
    for seen in (
        ([7, 3, 11, 40, 2], [8, 2, 0, 3, 1], [8, 4, 4, 8, 2]),
        ([3, 40, 5, 7, 9], [4, 0, 3, 8, 0], [4, 8, 4, 8, 8]),
    ):
        _, once = observe(state, *rows(*seen))
        _, parts = observe(state, *rows(*(column[:2] for column in seen)), advance=False)
        _, parts = observe(parts, *rows(*(column[2:] for column in seen)))
        close(once, parts, 1e-10)
        state = once


@every_selector
def test_an_empty_observation_is_a_step(name):
    selector, _, observe = build(name)
    state = reference(name)[0]
    nothing = ints([], [], [])
    feedback, empty = observe(state, *nothing)
    assert feedback.accept.shape == (0,)
    close(empty, dpsjax.advance(selector, state))
    _, padded = observe(state, *rows([-1, 4], [0, 0], [3, 0]))
    close(padded, empty)


@every_selector
def test_weighted_sums_ignore_padding(name):
    """A gradient summed with the batch's weights is the same whatever fills the padding."""
    selector, select, observe = build(name)
    batch, state = select(jax.random.key(1), start(selector, 3))
    batch = jax.tree.map(lambda column: column[:5], batch)  # three prompts and padding
    passes, trials = rollout(jax.random.key(2), batch.index, 3)
    feedback, _ = observe(state, batch.index, passes, trials)
    weight = batch.weight * feedback.weight

    def loss(theta, filler):
        per_prompt = jnp.where(batch.index >= 0, theta * batch.index.astype(jnp.float32), filler)
        return (per_prompt * jnp.where(feedback.accept, weight, 0)).sum()

    slope = jax.grad(loss)
    assert slope(jnp.float32(2), jnp.float32(0)) == slope(jnp.float32(2), jnp.float32(1e9))


@every_selector
def test_equals_are_drawn_fairly(name):
    """At the start all prompts are equal: each is drawn equally often, at 5 sigma."""
    selector = build(name)[0]
    state = start(selector)
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
    state = start(selector)
    first, again, other = (select(jax.random.key(seed), state)[0].index for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


@every_selector
def test_inspect_answers_wherever_there_is_a_belief(name):
    selector = build(name)[0]
    state = reference(name)[0]
    if not dpsjax.selectors.has_belief(selector, state):
        with pytest.raises(ValueError, match="needs a belief: put a tracker"):
            dpsjax.inspect(selector, state)
        return
    jitted = jax.jit(lambda state: dpsjax.inspect(selector, state, group=G))(state)
    outlook = dpsjax.inspect(selector, state, group=G)
    close(outlook, jitted, 1e-6)
    rate, mixed, outcome = (np.asarray(part, np.float64) for part in outlook)
    assert rate.shape == mixed.shape == (N,) and outcome.shape == (3, N)
    for part in (rate, mixed, outcome):
        assert (part >= 0).all() and (part <= 1).all()
    np.testing.assert_allclose(outcome.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(outcome[1], mixed)
    learned = np.ptp(rate) > 0 or np.ptp(mixed) > 0  # it is of these prompts
    assert learned != (name == "freeze")


@every_selector
def test_every_leaf_has_a_buffer_of_its_own(name):
    """Donating a state that names a buffer twice is an error of JAX."""
    state = start(build(name)[0])
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)
