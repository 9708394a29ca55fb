"""Mixtures, schedules, quotas, and when a prompt may come again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import rollouts, selectors

N, B, G = 24, 4, 4


def ints(values):
    return jnp.asarray(values, jnp.int32)


@functools.cache
def calls(build):
    selector = build()
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen))
    return selector, select, observe


def run(build, steps, outcome=lambda index: index % (G + 1), size=N, data=None):
    """Batches of several rounds; ``outcome`` gives the passes of each prompt."""
    selector, select, observe = calls(build)
    state, batches = selector.init(size, data), []
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
    with pytest.raises(ValueError, match="fraction must be finite and lie in"):
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


SOURCE = np.repeat([0, 1, 2], 8).astype(np.int32)
PASSES = np.tile(np.arange(8), 3)  # of eight, in each source


def seen_once(selector):
    """The state after eight rollouts of every prompt."""
    state = selector.init(N, {"source": SOURCE})
    seen = ints(range(N)), ints(PASSES), jnp.full(N, 8, jnp.int32)
    return dpsjax.observe(selector, state, *seen)[1]


def test_stratify_fills_quotas_with_the_best_of_each_source():
    selector = selectors.chain(selectors.beta_mean(), selectors.stratify((2, 1, 1)))
    state = seen_once(selector)
    index = np.asarray(dpsjax.select(selector, jax.random.key(0), state, B)[0].index)
    assert np.bincount(SOURCE[index], minlength=3).tolist() == [2, 1, 1]
    assert sorted(PASSES[index]) == [3, 4, 4, 4] or sorted(PASSES[index]) == [4, 4, 4, 5]
    few = state._replace(active=jnp.asarray(SOURCE != 0).at[0].set(True))
    index = np.asarray(dpsjax.select(selector, jax.random.key(0), few, B)[0].index)
    assert (index >= 0).all() and (SOURCE[index] == 0).sum() == 1


MARKS = {
    "mix": lambda: selectors.mix(selectors.uniform(), 0.25),
    "revisit": lambda: selectors.revisit(0, 0.25),
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("marked", [("mix",), ("revisit",), ("mix", "revisit")])
def test_quotas_and_floors_hold_in_any_order(marked, before):
    """A prompt that is marked takes a place of its own source, wherever ``stratify`` stands."""
    parts = [MARKS[name]() for name in marked]
    parts.insert(0 if before else len(parts), selectors.stratify((2, 1, 1)))
    selector, draws = selectors.chain(selectors.beta_mean(), *parts), 1500
    state = selector.init(N, {"source": SOURCE})
    # Prompts 3, 11 and 19 were solved, so they are due for a revisit and far from the target.
    passes = np.where(np.arange(N) % 8 == 3, 8, np.minimum(PASSES, 7))
    seen = ints(range(N)), ints(passes), jnp.full(N, 8, jnp.int32)
    state = dpsjax.observe(selector, state, *seen)[1]
    pick = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, 8)[0].index))
    index = np.asarray(pick(jax.random.split(jax.random.key(0), draws)))
    for number in range(3):
        assert (((SOURCE[index] == number).sum(axis=1)) == (4, 2, 2)[number]).all()
    if "revisit" in marked:
        due = (index % 8 == 3).sum(axis=1)
        assert (due >= 2).all() and (due.mean() < 2.5 or "mix" in marked)
    if "mix" in marked:
        share, floor = np.bincount(index.ravel(), minlength=N) / draws, 2 / N
        assert (share > floor - 5 * np.sqrt(floor * (1 - floor) / draws)).all()


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
    selector = selectors.chain(selectors.schedule(selectors.uniform(), selectors.accept_mixed(), 1))
    state = selector.init(3)
    seen = ints([0, 1, 2]), ints([0, 2, 4]), ints([4, 4, 4])
    feedback, state = dpsjax.observe(selector, state, *seen)
    assert feedback.accept.tolist() == [True, True, True]
    feedback, _ = dpsjax.observe(selector, state, *seen)
    assert feedback.accept.tolist() == [False, True, False]


def test_freeze_learns_nothing():
    selector = selectors.freeze(selectors.chain(selectors.beta_mean(), selectors.accept_mixed()))
    state = selector.init(3)
    feedback, after = dpsjax.observe(selector, state, ints([0, 1]), ints([0, 2]), ints([4, 4]))
    assert feedback.accept.tolist() == [False, True]
    jax.tree.map(np.testing.assert_array_equal, state, after)


def test_uniform_epochs_visits_all_before_any_twice():
    batches, _ = run(selectors.uniform_epochs, 2 * N // B)
    assert sorted(np.concatenate(batches[: N // B])) == list(range(N))
    assert sorted(np.concatenate(batches[N // B :])) == list(range(N))
    assert [*batches[0]] != sorted(batches[0]) or [*batches[1]] != sorted(batches[1])


def test_late_weights_and_vetoes_are_those_in_force():
    """In a schedule, and in a mixture, whose guest vetoes and weighs too."""

    def weigh(value):
        def observe(evidence):
            return evidence.replace(weight=evidence.weight * jnp.float32(value))

        return selectors.stateless(observe=observe)

    seen = ints([0, 1, -1]), ints([0, 2, 0]), ints([4, 4, 0])
    for selector, expected in (
        (selectors.chain(selectors.schedule(weigh(2), weigh(3), 1)), [2.0, 3.0]),
        (selectors.chain(weigh(2), selectors.mix(weigh(3))), [6.0, 6.0]),
        (selectors.freeze(selectors.chain(weigh(2))), [2.0, 2.0]),
    ):
        state = selector.init(3)
        for value in expected:
            feedback, state = dpsjax.observe(selector, state, *seen)
            assert feedback.weight.tolist() == [value, value, 0]


def test_a_veto_judges_each_group():
    """Two groups of a prompt, none and all right: together mixed, but neither can teach."""
    selector = selectors.chain(selectors.track_beta(), selectors.accept_mixed())
    seen = ints([7, 7, 3, 3]), ints([0, 8, 4, 8]), ints([8, 8, 8, 8])
    feedback, state = dpsjax.observe(selector, selector.init(8), *seen)
    assert feedback.accept.tolist() == [False, False, True, False]
    assert state.parts[0].excess[:, 7].tolist() == [8, 8]  # the belief learned from both


def test_rows_may_have_different_numbers_of_rollouts():
    """Eight of eight in one row equal four and four merged; no rollouts at all show nothing."""
    for selector in (
        selectors.mopps(),
        selectors.dps(num_states=5),
        selectors.dps_binomial(),
        selectors.chain(selectors.track_logit()),
        selectors.chain(selectors.track_average(selectors.pass_rate)),
    ):
        state = selector.init(6)
        _, one = dpsjax.observe(selector, state, ints([2, 4]), ints([5, 0]), ints([8, 0]))
        _, two = dpsjax.observe(selector, state, ints([2, 2]), ints([2, 3]), ints([3, 5]))
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_allocate_divides_the_rollouts_of_the_batch_by_belief():
    selector = selectors.chain(
        selectors.beta_mean(), selectors.allocate(functools.partial(rollouts.vip_allocate), G)
    )
    state = seen_once(selectors.beta_mean())
    state = selector.init(N)._replace(parts=(state, ()))
    batch, _ = dpsjax.select(selector, jax.random.key(0), state, B)
    rate = dpsjax.inspect(selector, state).rate[batch.index]
    np.testing.assert_array_equal(batch.trials, rollouts.vip_allocate(rate, B * G))
    assert int(batch.trials.sum()) == B * G
