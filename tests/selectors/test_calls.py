"""`select`, `observe` and `inspect` as a plain Python loop calls them: compiled once, no copies."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.selectors.table import REPRESENTATIVE, SELECTORS, data

MANY = 10**6
LANES = ["dps", "mopps", "logit", "average", "uniform-epochs", "dps, proportional"]


def pointers(tree):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


def pass_over(selector, state, step, batch_size=8, **settings):
    """One turn of README's loop."""
    batch, state = dpsjax.select(selector, jax.random.key(step), state, batch_size)
    passes, trials = np.arange(batch_size) % 5, np.full(batch_size, 4)
    feedback, state = dpsjax.observe(selector, state, batch.index, passes, trials, **settings)
    return batch, feedback, state


@contextlib.contextmanager
def compilations():
    """The number of programs compiled, in a list of one."""
    made = [0]

    def listen(name, seconds, **_):
        made[0] += name == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield made
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", sorted(REPRESENTATIVE))
def test_nothing_compiles_twice(name):
    """Neither in the second turn nor for a second selector's state of the same shapes."""
    selector = SELECTORS[name]()
    state = selector.init(40, data(40))
    with compilations() as first:
        _, _, state = pass_over(selector, state, 0)
        if selectors.has_belief(selector, state):
            dpsjax.inspect(selector, state)
    assert first[0] > 0  # the listener hears
    with compilations() as more:
        for step in range(1, 4):
            _, _, state = pass_over(selector, state, step)
            if selectors.has_belief(selector, state):
                dpsjax.inspect(selector, state)
    assert more[0] == 0


def test_another_shape_is_another_program():
    selector = selectors.beta_mean()
    state = pass_over(selector, selector.init(41), 0)[2]
    with compilations() as made:
        pass_over(selector, state, 1, batch_size=9)
    assert made[0] > 0


@pytest.mark.parametrize("name", LANES)
def test_select_passes_on_what_it_does_not_change(name):
    selector = SELECTORS[name]()
    state = selector.init(MANY)
    batch, after = dpsjax.select(selector, jax.random.key(0), state, 8)
    assert pointers(after) == pointers(state)
    assert len(set(batch.index.tolist())) == 8


@pytest.mark.parametrize("name", LANES)
def test_a_donated_state_is_written_in_place(name):
    selector = SELECTORS[name]()
    state = selector.init(MANY)
    for step in range(2):
        before = pointers(state)
        _, _, state = pass_over(selector, state, step, donate=True)
        large = [
            p for p, leaf in zip(pointers(state), jax.tree.leaves(state), strict=True) if leaf.ndim
        ]
        assert set(large) <= set(before)


@pytest.mark.parametrize("name", LANES)
def test_a_donated_state_is_never_copied_under_jit(name):
    """Every lane is aliased, and what the program needs beside is less than a lane of bytes."""
    selector = SELECTORS[name]()
    state = jax.eval_shape(lambda: selector.init(MANY))
    rows = [jax.ShapeDtypeStruct((8,), jnp.int32)] * 3
    step = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen), donate_argnums=0)
    memory = step.lower(state, *rows).compile().memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert memory.alias_size_in_bytes == size
    assert memory.temp_size_in_bytes < MANY


def test_an_undonated_state_stays_what_it_was():
    selector = selectors.dps()
    state = selector.init(100)
    kept = jax.tree.map(np.array, state)
    pass_over(selector, state, 0)
    jax.tree.map(np.testing.assert_array_equal, state, kept)


def test_a_donated_state_cannot_be_used_again():
    selector = selectors.dps()
    state = selector.init(100)
    pass_over(selector, state, 0, donate=True)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(jax.tree.leaves(state.parts)[0])


def test_settings_that_are_traced_are_no_program_of_their_own():
    """Arrays given to a recipe outside ``jit`` are; inside they belong to what stands around."""
    seen = jnp.array([3, 1], jnp.int32), jnp.array([1, 1], jnp.int32), jnp.array([4, 2], jnp.int32)

    def mean(decay):
        selector = selectors.beta_mean(decay=decay)
        state = dpsjax.observe(selector, selector.init(9), *seen)[1]
        state = dpsjax.observe(selector, state, *seen)[1]
        return dpsjax.inspect(selector, state).rate

    eager = [mean(jnp.float32(x)) for x in (0.25, 0.75)]
    swept = jax.vmap(mean)(jnp.array([0.25, 0.75], jnp.float32))
    np.testing.assert_allclose(jnp.stack(eager), swept, rtol=1e-6)
    assert abs(eager[0] - eager[1]).max() > 0.01


@pytest.mark.parametrize("wide", [np.int64, np.uint64])
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (([2**32 + 3], [1], [4]), r"index must lie in \[0, 8\)"),
        (([2**63 - 1], [1], [4]), r"index must lie in \[0, 8\)"),
        (([3], [2**32 + 4], [8]), "passes must be counts of at most 31 bits"),
        (([3], [1], [2**32 + 4]), "trials must be counts of at most 31 bits"),
        (([3], [1], [2**31]), "trials must be counts of at most 31 bits"),
        (([3], [5], [4]), "passes must lie in"),
    ],
)
def test_wide_numbers_are_judged_before_they_are_narrowed(columns, words, wide):
    """An error where they can be read; a dropped row, or ``checkify``'s error, under ``jit``."""
    selector = selectors.chain(selectors.track_beta(), selectors.track_visits())
    state = selector.init(8)
    rows = tuple(np.array([*column, 2], wide) for column in columns)
    with pytest.raises(ValueError, match=words):
        dpsjax.observe(selector, state, *rows)

    def observe(state, *seen):
        return dpsjax.observe(selector, state, *seen)

    feedback, dropped = jax.jit(observe)(state, *rows)
    good = tuple(np.array([column[-1]], np.int32) for column in rows)
    assert feedback.accept.tolist() == [False, True] and feedback.weight[0] == 0
    jax.tree.map(np.testing.assert_array_equal, dropped, dpsjax.observe(selector, state, *good)[1])
    error, _ = jax.jit(dpsjax.checkify(observe))(state, *rows)
    assert error.get() is not None and words.split()[0] in error.get()


def test_wide_ids_of_a_pool_are_judged_before_they_are_narrowed():
    selector = selectors.uniform()
    state = selectors.reserve(selector, 2, 8)
    far = np.array([2**32 + 3], np.int64)
    for call in (
        lambda state, far: selectors.add_prompts(selector, state, far),
        lambda state, far: selectors.remove_prompts(state, far),
    ):
        with pytest.raises(ValueError, match=r"index must lie in \[0, 8\)"):
            call(state, far)
        after = jax.jit(call)(state, far)
        np.testing.assert_array_equal(after.active, state.active)


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (4,), ()])
def test_extras_have_a_row_for_each(shape):
    """One row is not spread over all."""
    selector = selectors.depo()
    state, two = selector.init(6), np.array([1, 2])
    with pytest.raises(ValueError, match=r"rewards must have shape \(2, ...\)"):
        dpsjax.observe(selector, state, two, two, 2 * two, rewards=np.zeros(shape, np.float32))


@pytest.mark.parametrize("rewards", [[0.9, 0.1], [[1.0, 0.0]], np.array([0.5, 1.0])])
def test_rewards_are_no_counts(rewards):
    """The advice must not lose what the numbers say, as a cast to integers would."""
    selector = selectors.uniform()
    with pytest.raises(TypeError, match=r"passes must hold integers.*rewards > 0.5\)") as caught:
        dpsjax.observe(selector, selector.init(4), np.array([0, 1]), np.array(rewards), [4, 4])
    assert "cast" not in str(caught.value)
