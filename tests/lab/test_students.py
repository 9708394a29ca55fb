"""Students: probabilities, laws, and what each family is there to show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.lab import students
from tests.oracles import lab as oracle

FAMILIES = (
    students.logit_normal,
    students.slow,
    students.forgetting,
    students.regime_shift,
    students.unlocking,
    students.noisy_verifier,
    students.correlated_topics,
    students.limited_lessons,
)
POOL, HELD_OUT, GROUP = 200, 50, 8


@pytest.fixture(scope="module")
def everything():
    """All families at once: the parameters are a vmap axis."""
    params = [family() for family in FAMILIES]
    stacked = students.StudentParams(
        *(jnp.array(v, jnp.float32) for v in zip(*params, strict=True))
    )

    def steps(params, key):
        student = students.student(params, HELD_OUT)
        state = student.init(key, POOL)
        index = jnp.arange(40, dtype=jnp.int32).at[3].set(-1)
        curve = []
        for step in range(3):
            before = student.pass_rate(state)
            uniforms = jax.random.uniform(jax.random.fold_in(key, step), (40, GROUP), jnp.float32)
            passes, trials = student.answer(uniforms, state, index)
            state = student.learn(state, index, passes, trials, jnp.ones(40, jnp.float32))
            curve.append((before, passes, trials, student.outcome(state, GROUP)))
        return curve, student.pass_rate(state), student.held_out(state), state

    run = jax.jit(jax.vmap(steps, in_axes=(0, None)))
    return run, stacked


def test_probabilities_and_padding(everything, key):
    run, params = everything
    curve, rate, held_out, _ = run(params, key)
    assert rate.shape == (len(FAMILIES), POOL) and held_out.shape == (len(FAMILIES), HELD_OUT)
    assert rate.dtype == jnp.float32
    for values in (rate, held_out, *(step[0] for step in curve)):
        assert np.all((values >= 0) & (values <= 1))
    for _, passes, trials, outcome in curve:
        np.testing.assert_allclose(outcome.sum(axis=1), 1, atol=1e-6)
        assert np.all((passes >= 0) & (passes <= trials))
        assert np.all(trials[:, 3] == 0) and np.all(trials[:, 4] == GROUP)


def test_seeds_decide(everything, key):
    run, params = everything
    first, again, other = run(params, key), run(params, key), run(params, jax.random.key(1))
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(again)))
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_families_differ_from_the_first(family):
    assert family.__doc__
    assert family is students.logit_normal or family() != students.logit_normal()
    assert family(own_gain=0.25).own_gain == 0.25


HARD = students.StudentParams(
    mean=0.3, spread=1.5, own_gain=0.7, shared_gain=0.4, repetition=0.8, forgetting=0.1,
    topic_share=0.4, locked_share=0.3, unlock_range=0.2, shift_step=2.0, shift_spread=1.0,
    false_pass=0.1, false_fail=0.05,
)  # fmt: skip


def test_every_law_against_a_loop(key):
    student = students.student(HARD, HELD_OUT)
    state = student.init(key, POOL)
    params = HARD._asdict()
    mirror = {name: np.array(value, np.float64) for name, value in state._asdict().items()}
    mirror["topic"] = np.array(state.topic)
    learn = jax.jit(student.learn)
    random = np.random.default_rng(0)
    for step in range(4):
        index = random.permutation(POOL)[:20].astype(np.int32)
        index[5] = -1
        uniforms = random.random((20, GROUP), np.float32)
        passes, trials = student.answer(jnp.array(uniforms), state, jnp.array(index))
        rate = oracle.solve_rate(params, mirror, step)
        wanted = (uniforms < oracle.verdict(params, rate)[index][:, None]).sum(axis=1)
        wanted[5] = 0
        np.testing.assert_array_equal(passes, wanted)
        weight = random.random(20).astype(np.float32)
        state = learn(state, jnp.array(index), passes, trials, jnp.array(weight))
        oracle.learn(params, mirror, step, index, wanted, np.array(trials), weight)
        rate = oracle.solve_rate(params, mirror, step + 1)
        np.testing.assert_allclose(student.pass_rate(state), rate[:POOL], rtol=2e-5)
        np.testing.assert_allclose(student.held_out(state), rate[POOL:], rtol=2e-5)
        truth = oracle.outcome(oracle.verdict(params, rate[:POOL]), GROUP)
        np.testing.assert_allclose(student.outcome(state, GROUP), truth, atol=2e-5)


def test_answers_follow_the_probability(key):
    student = students.student(students.noisy_verifier(), HELD_OUT)
    state = student.init(key, 4)
    uniforms = jax.random.uniform(key, (4, 10_000), jnp.float32)
    passes, _ = student.answer(uniforms, state, jnp.arange(4, dtype=jnp.int32))
    q = np.asarray(student.pass_rate(state), float) * 0.9 + 0.05
    assert np.all(np.abs(np.asarray(passes) / 1e4 - q) < 5 * np.sqrt(q * (1 - q) / 1e4))


def _trained(params, index, key):
    """Held-out ability after 20 steps of fully mixed groups on these prompts."""
    student = students.student(params, HELD_OUT)
    state = student.init(key, POOL)
    half = jnp.full(index.shape, GROUP // 2, jnp.int32)
    for _ in range(20):
        weight = jnp.ones(index.shape, jnp.float32)
        state = student.learn(state, index, half, 2 * half, weight)
    return float(student.held_out(state).mean())


def test_few_prompts_generalise_less(key):
    few = jnp.tile(jnp.arange(4, dtype=jnp.int32), 10)[:40]
    many = jnp.arange(40, dtype=jnp.int32)
    plain, limited = students.logit_normal(), students.limited_lessons()
    assert _trained(limited, many, key) > _trained(limited, few, key) + 0.005
    assert abs(_trained(plain, many, key) - _trained(plain, few, key)) < 1e-5


def test_verifier_noise_on_hopeless_prompts_teaches_little(key):
    noisy = students.noisy_verifier(mean=-12.0, spread=0.1)
    student = students.student(noisy, HELD_OUT)
    state = student.init(key, POOL)
    index, ones = jnp.arange(8, dtype=jnp.int32), jnp.ones(8, jnp.int32)
    learned = student.learn(state, index, ones, 8 * ones, jnp.ones(8, jnp.float32))
    assert float(student.outcome(state, GROUP)[1].mean()) > 0.3
    assert float(jnp.abs(learned.own).max()) < 1e-3


def test_what_is_known_beforehand(key):
    """The hint is off by about a logit and says nothing of topics; it never changes."""
    student = students.student(students.logit_normal(), HELD_OUT)
    state = student.init(key, 4000)
    known = student.data(state)
    assert known["topic"].shape == known["difficulty"].shape == (4000,)
    np.testing.assert_array_equal(known["topic"], state.topic[:4000])
    np.testing.assert_array_equal(known["source"], known["topic"])
    np.testing.assert_array_equal(known["level"], np.asarray(known["difficulty"]) // 20)
    rate = 1 - np.asarray(known["difficulty"], float) / 100
    error = np.log(rate / (1 - rate)) - np.asarray(state.difficulty[:4000], float)
    assert abs(error.mean()) < 5 / np.sqrt(4000) and 0.9 < error.std() < 1.1
    sharp = students.student(students.logit_normal(hint_error=0.0), HELD_OUT)
    rate = 1 - np.asarray(sharp.data(sharp.init(key, 4000))["difficulty"], float) / 100
    np.testing.assert_allclose(rate, sharp.pass_rate(sharp.init(key, 4000)), atol=1e-5)


def test_features_hold_the_hint_and_the_topic(key):
    student = students.student(students.logit_normal(), HELD_OUT)
    state = student.init(key, 40)
    hint, topic = np.asarray(state.hint)[:40], np.asarray(state.topic)[:40]
    wanted = np.zeros((40, 1 + students.TOPICS), np.float32)
    wanted[:, 0] = hint
    wanted[np.arange(40), 1 + topic] = 1
    np.testing.assert_array_equal(student.data(state)["features"], wanted)


def test_bad_sizes():
    with pytest.raises(ValueError, match="held_out=0 must be at least 1"):
        students.student(students.logit_normal(), 0)
