"""Combinators, exclusion by history, refilled batches and growing pools."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors import combinators
from tests.oracles import selectors as oracle

N, B, G = 24, 4, 4


def ints(values):
    return jnp.asarray(values, jnp.int32)


@functools.cache
def calls(build):
    selector = build()
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    return selector, select, observe


def run(build, steps, outcome=lambda index: index % (G + 1), size=N):
    """Batches of several rounds; ``outcome`` gives the passes of each prompt."""
    selector, select, observe = calls(build)
    state, batches = selector.init(size), []
    for step in range(steps):
        batch, state = select(jax.random.fold_in(jax.random.key(1), step), state)
        index = np.asarray(batch.index)
        passes = np.where(index >= 0, outcome(index), 0)
        _, state = observe(state, batch.index, ints(passes), jnp.full(B, G, jnp.int32))
        batches.append(index)
    return batches, state


def cooled():
    return selectors.chain(selectors.dps(), selectors.cool_down(3))


def test_cool_down_keeps_prompts_out_for_n_steps():
    batches, _ = run(cooled, 12, lambda index: np.full(B, 2))
    for step, batch in enumerate(batches):
        assert (batch >= 0).all()
        for earlier in batches[max(step - 3, 0) : step]:
            assert not set(batch) & set(earlier)
    # The partial ones come back as soon as they may.
    assert set(batches[4]) == set(batches[0])


def test_cool_down_of_a_small_pool():
    batches, _ = run(cooled, 3, size=6)
    assert [(batch >= 0).sum() for batch in batches] == [4, 2, 0]

    def relaxed():
        return selectors.chain(selectors.dps(), selectors.cool_down(3, strict=False))

    batches, _ = run(relaxed, 3, size=6)
    assert all((batch >= 0).all() for batch in batches)
    assert set(batches[1]) > set(range(6)) - set(batches[0])


def half_uniform():
    return selectors.chain(selectors.beta_mean(), selectors.mix(selectors.uniform(), 0.5))


def test_mix_draws_its_share_uniformly():
    selector, select, _ = calls(half_uniform)
    state = selector.init(N)
    # Prompts 0..3 look best, so the part before takes two places of four for them.
    best = ints([0, 1, 2, 3])
    everyone = ints(range(N))
    _, state = dpsjax.observe(
        selector, state, everyone, jnp.full(N, G, jnp.int32), jnp.full(N, G, jnp.int32)
    )
    _, state = dpsjax.observe(selector, state, best, jnp.full(B, 4, jnp.int32), ints([8] * B))
    draws = 3000
    keys = jax.random.split(jax.random.key(0), draws)
    index = np.asarray(jax.jit(jax.vmap(lambda key: select(key, state)[0].index))(keys))
    share = np.bincount(index[:, :2].ravel(), minlength=N) / draws  # marked rows come first
    floor = 2 / N
    assert (abs(share - floor) < 5 * np.sqrt(floor * (1 - floor) / draws)).all()
    assert (index[:, 2:] < 4).all()


def test_mix_refuses_a_fraction_above_one():
    with pytest.raises(ValueError, match="fraction must lie in"):
        selectors.mix(selectors.uniform(), 1.5)


def test_revisit_brings_back_solved_prompts():
    def build():
        return selectors.chain(selectors.dps(decay=1.0), selectors.revisit(5, 0.25))

    # Prompts 0..7 are solved, 8..11 partial, the rest unsolved.
    def outcome(index):
        return np.where(index < 8, G, np.where(index < 12, 2, 0))

    batches, state = run(build, 40, outcome)
    seen = np.array([[n in batch for batch in batches[20:]] for n in range(N)])
    assert seen[:8].any(axis=1).all()  # all solved ones came back
    assert (seen[:8].sum(axis=0) <= 1).all() or seen[:8].sum() <= 20 * B // 2
    solved = np.asarray(state.parts[1].parts[0].solved)
    assert solved[:8].all() and not solved[8:].any()
    without = run(lambda: selectors.dps(decay=1.0), 40, outcome)[0]
    assert not any(set(batch) & set(range(8)) for batch in without[20:])


def test_stratify_fills_quotas_with_the_best_of_each_source():
    source = np.repeat([0, 1, 2], 8).astype(np.int32)

    def build():
        return selectors.chain(selectors.beta_mean(), selectors.stratify(source, (2, 1, 1)))

    selector, select, _ = calls(build)
    state = selector.init(N)
    passes = np.tile(np.arange(8), 3)
    _, state = dpsjax.observe(
        selector, state, ints(range(N)), ints(passes), jnp.full(N, 8, jnp.int32)
    )
    index = np.asarray(select(jax.random.key(0), state)[0].index)
    assert np.bincount(source[index], minlength=3).tolist() == [2, 1, 1]
    assert sorted(passes[index]) == [3, 4, 4, 4] or sorted(passes[index]) == [4, 4, 4, 5]
    few = state._replace(active=jnp.asarray(source != 0).at[0].set(True))
    index = np.asarray(select(jax.random.key(0), few)[0].index)
    assert (index >= 0).all() and (source[index] == 0).sum() == 1


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.1, 0.7, 0.2), (0.0, 3.0, 1.0)])
@pytest.mark.parametrize("total", [0, 7, 100])
def test_quotas_are_the_nearest_whole_numbers(shares, total):
    found = np.asarray(combinators.quotas(jnp.asarray(shares, jnp.float32), total))
    exact = np.array(shares) / sum(shares) * total
    assert found.sum() == total and (abs(found - exact) < 1).all()


def test_schedule_changes_over_and_both_learn():
    def build():
        return selectors.chain(selectors.schedule(selectors.uniform(), selectors.beta_mean(), 8))

    # Two of eight prompts are partial. Uniform draws do not care; the mean, which learned from
    # them, does.
    batches, _ = run(build, 12, lambda index: np.where(index >= 6, 2, 0), size=8)
    assert not all({6, 7} <= set(batch) for batch in batches[:8])
    assert set(np.concatenate(batches[:8])) == set(range(8))
    assert all({6, 7} <= set(batch) for batch in batches[8:])


def test_schedule_vetoes_with_the_one_in_force():
    selector = selectors.chain(
        selectors.schedule(selectors.uniform(), selectors.dynamic_sampling(), 1)
    )
    state = selector.init(3)
    seen = ints([0, 1, 2]), ints([0, 2, 4]), ints([4, 4, 4])
    accept, state = dpsjax.observe(selector, state, *seen)
    assert accept.tolist() == [True, True, True]
    accept, _ = dpsjax.observe(selector, state, *seen)
    assert accept.tolist() == [False, True, False]


def test_freeze_learns_nothing():
    selector = selectors.freeze(selectors.dynamic_sampling(selectors.beta_mean()))
    state = selector.init(3)
    accept, after = dpsjax.observe(selector, state, ints([0, 1]), ints([0, 2]), ints([4, 4]))
    assert accept.tolist() == [False, True]
    jax.tree.map(np.testing.assert_array_equal, state, after)


@pytest.mark.parametrize("exclude", ["next_epoch", "forever", "this_epoch"])
def test_history_resampling_follows_the_sets(exclude):
    loop = oracle.EpochLoop(N, exclude)
    rng = np.random.default_rng(0)
    selector = selectors.history_resampling(exclude)
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    state, sizes = selector.init(N), set()
    for step in range(60):
        batch, state = select(jax.random.fold_in(jax.random.key(0), step), state)
        index = [int(i) for i in batch.index if i >= 0]
        allowed, preferred = loop.preferred()
        assert set(index) <= allowed
        assert len(index) == min(B, len(allowed))
        assert len(set(index) & preferred) == min(B, len(preferred))
        sizes.add(len(allowed))
        passes = np.where(rng.random(B) < 0.3, G, rng.integers(0, G, B))
        _, state = observe(state, batch.index, ints(passes), jnp.full(B, G, jnp.int32))
        loop.step({n: (int(passes[b]), G) for b, n in enumerate(index)})
    assert len(sizes) > 2


def test_history_resampling_by_steps_and_keeps_the_unsolved():
    def build():
        return selectors.history_resampling(epoch_steps=N // B)

    # An epoch is 6 steps here. Even prompts are solved, odd ones are hopeless.
    batches, _ = run(build, 18, lambda index: np.where(index % 2 == 0, G, 0))
    epochs = [np.concatenate(batches[6 * e : 6 * e + 6]) for e in range(3)]
    assert sorted(epochs[0]) == list(range(N))
    assert (epochs[1] % 2 == 1).all()
    assert (epochs[2] % 2 == 0).any()
    with pytest.raises(ValueError, match="epoch_steps"):
        selectors.history_resampling(epoch_steps=0)


def test_uniform_epochs_visits_all_before_any_twice():
    batches, _ = run(selectors.uniform_epochs, 2 * N // B)
    assert sorted(np.concatenate(batches[: N // B])) == list(range(N))
    assert sorted(np.concatenate(batches[N // B :])) == list(range(N))
    assert [*batches[0]] != sorted(batches[0]) or [*batches[1]] != sorted(batches[1])


def test_static_order_goes_up_and_around():
    difficulty = np.random.default_rng(0).permutation(N).astype(np.float32)
    for hardest_first in (False, True):
        build = functools.partial(selectors.static_order, difficulty, hardest_first)
        order = np.concatenate(run(build, 2 * N // B)[0])
        expected = np.argsort(-difficulty if hardest_first else difficulty)
        np.testing.assert_array_equal(order, np.tile(expected, 2))


def test_row_data_must_fit_the_pool():
    with pytest.raises(ValueError, match="difficulty must have shape"):
        selectors.adarft(np.zeros(5)).init(6)


# --- refilled batches


def test_buffer_loses_and_repeats_nothing():
    rng = np.random.default_rng(0)
    push = jax.jit(selectors.push)
    take = jax.jit(lambda buffer: selectors.take(buffer, B))
    buffer = selectors.init_buffer({"id": jax.ShapeDtypeStruct((2,), jnp.int32)}, 2 * B - 1)
    pushed, taken, number = [], [], 0
    for _ in range(50):
        while int(buffer.size) < B:
            accept = rng.random(B) < rng.choice([0.1, 0.5, 1.0])
            ids = np.arange(number, number + B)
            number += B
            pushed += ids[accept].tolist()
            groups = {"id": jnp.stack([ints(ids), ints(-ids)], axis=1)}
            buffer = push(buffer, groups, jnp.asarray(accept))
        groups, valid, buffer = take(buffer)
        assert valid.all()
        assert (groups["id"][:, 0] == -groups["id"][:, 1]).all()
        taken += groups["id"][:, 0].tolist()
    assert taken == pushed[: len(taken)] and len(pushed) - len(taken) == int(buffer.size)
    assert int(buffer.lost) == 0


def test_buffer_that_is_too_small_says_so():
    buffer = selectors.init_buffer(jax.ShapeDtypeStruct((), jnp.int32), 5)
    buffer = selectors.push(buffer, ints(range(4)), jnp.ones(4, bool))
    with pytest.raises(ValueError, match="2 \\* batch_size - 1"):
        selectors.push(buffer, ints(range(4)), jnp.ones(4, bool))
    over = jax.jit(selectors.push)(buffer, ints(range(10, 14)), jnp.ones(4, bool))
    assert int(over.lost) == 3 and over.groups.tolist() == [0, 1, 2, 3, 10]
    with pytest.raises(ValueError, match="batch_size must lie in"):
        selectors.take(buffer, 6)


def rollout(key, batch):
    """Prompt n passes with probability n/N; a group is its prompt and a number of its own."""
    draws = jax.random.uniform(key, (B, G), jnp.float32)
    chance = (batch.index.astype(jnp.float32) / N)[:, None]
    passes = (draws < chance).sum(axis=1, dtype=jnp.int32)
    mark = jax.random.randint(key, (B,), 0, 2**30, jnp.int32)
    return passes, jnp.full(B, G, jnp.int32), (batch.index, passes, mark)


@pytest.mark.parametrize("max_rounds", [None, 1])
def test_fill_until_full_or_capped(max_rounds):
    selector = selectors.dynamic_sampling(selectors.uniform_epochs())
    group = (jax.ShapeDtypeStruct((), jnp.int32),) * 3

    @jax.jit
    def step(key, state, buffer):
        return selectors.fill(selector, key, state, buffer, B, rollout, max_rounds)

    state, buffer = selector.init(N), selectors.init_buffer(group, 2 * B - 1)
    marks, fills, rounds_made = [], [], 0
    for t in range(12):
        (index, passes, mark), valid, rounds, state, buffer = step(
            jax.random.fold_in(jax.random.key(0), t), state, buffer
        )
        passes, valid = np.asarray(passes), np.asarray(valid)
        assert ((passes > 0) & (passes < G))[valid].all()
        marks += np.asarray(mark)[valid].tolist()
        fills.append(valid.sum())
        rounds_made += int(rounds)
        assert max_rounds is None or rounds <= max_rounds
        assert (np.asarray(index)[~valid] == 0).all()
    assert len(set(marks)) == len(marks)
    assert all(n == B for n in fills) == (max_rounds is None)
    visits = state.parts[0].parts[0].times
    assert int(visits.sum()) == rounds_made * B  # every rollout was learned from


# --- pools that grow


def test_prompts_can_join_and_leave_a_running_pool():
    selector = selectors.chain(selectors.beta_mean(), selectors.cool_down(1))
    state = selectors.reserve(selector, 10, N)
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, 12)[0].index)
    assert sorted(select(jax.random.key(0), state).tolist()) == [-1, -1, *range(10)]
    seen = ints([0, 1]), ints([4, 4]), ints([4, 4])
    _, state = dpsjax.observe(selector, state, *seen)
    state = selectors.remove_prompts(state, ints([3, -1]))
    state = selectors.add_prompts(selector, state, ints([1, 20, -1]))
    drawn = set(select(jax.random.key(0), state).tolist()) - {-1}
    assert drawn == {1, 2, 4, 5, 6, 7, 8, 9, 20}  # 0 is cooling down, 1 is new in its row
    excess = np.asarray(state.parts[0].parts[0].excess)
    assert excess[:, 0].tolist() == [4, 0] and excess[:, 1].tolist() == [0, 0]
    assert int(state.parts[0].parts[0].step) == 1
    with pytest.raises(ValueError, match="index must lie in"):
        selectors.add_prompts(selector, state, ints([N]))
    with pytest.raises(ValueError, match="num_prompts"):
        selectors.reserve(selector, N + 1, N)


def test_rows_may_have_different_numbers_of_rollouts():
    """Eight of eight in one row equal four and four merged; no rollouts at all show nothing."""
    for build in (selectors.mopps, selectors.kgps, selectors.greso, selectors.gcs):
        selector = build()
        state = selector.init(6)
        _, one = dpsjax.observe(selector, state, ints([2, 4]), ints([5, 0]), ints([8, 0]))
        _, two = dpsjax.observe(selector, state, ints([2, 2]), ints([2, 3]), ints([3, 5]))
        jax.tree.map(np.testing.assert_array_equal, one, two)
