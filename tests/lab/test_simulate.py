"""A run against a plain loop, delays, refilled batches, oracles, and one trace for a sweep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.lab import simulate as lab
from dpsjax.lab import students
from dpsjax.lab.measures import MEASURES, summarize
from tests.oracles import lab as oracle

SETTING = lab.Setting(pool=40, batch=6, rollouts=4, steps=7)
HELD_OUT = 12
PARAMS = students.limited_lessons(spread=2.5, shared_gain=0.5)
STUDENT = students.student(PARAMS, HELD_OUT)


def run(contender, setting=SETTING, student=STUDENT, seed=0):
    one = jax.jit(lambda key: lab.simulate(contender, student, key, setting, record=True))
    return jax.tree.map(np.asarray, one(jax.random.key(seed)))


def loop(found, contender, setting, seed=0):
    """Repeat a recorded run with plain loops, given its choices and its uniform numbers."""
    key = jax.random.key(seed)
    state = STUDENT.init(jax.random.fold_in(key, 0), setting.pool)
    params = PARAMS._asdict()
    mirror = {name: np.array(value, np.float64) for name, value in state._asdict().items()}
    mirror["topic"] = np.array(state.topic)
    groups, visits, arrived, out = found.groups, np.zeros(setting.pool, int), [], []
    accepted, updates = [], [None] * setting.steps
    for step in range(setting.steps):
        late = step - setting.delay
        arrived.append(late if late >= 0 else None)
        mixed = np.zeros(setting.batch, bool)
        if late >= 0:
            k, n = groups.passes[late], groups.trials[late]
            mixed = (k > 0) & (k < n) if contender.waves > 1 else n > 0
        accepted.append(mixed)
    if contender.waves > 1:
        updates = oracle.refill(accepted, setting.batch, contender.waves)
    else:
        updates = [[(s, b) for b in range(setting.batch) if row[b]] for s, row in
                   enumerate(accepted)]  # fmt: skip
    for step in range(setting.steps):
        rate = oracle.solve_rate(params, mirror, step)
        index = groups.index[step]
        numbers = np.asarray(lab.uniforms(key, step, setting))
        passes = [(numbers[b] < rate[index[b]]).sum() for b in range(setting.batch)]
        np.testing.assert_array_equal(groups.passes[step], passes)
        visits[index] += 1
        used = [(arrived[s], b) for s, b in updates[step] or []]
        rows = [(groups.index[s][b], groups.passes[s][b], groups.trials[s][b]) for s, b in used]
        rows += [(-1, 0, 0)] * (setting.batch - len(rows))
        oracle.learn(params, mirror, step, *np.array(rows).T, np.ones(setting.batch))
        rate = oracle.solve_rate(params, mirror, step + 1)
        effective = sum(0 < k < setting.rollouts for k in passes)
        pool, held_out = rate[: setting.pool].mean(), rate[setting.pool :].mean()
        out.append((effective, bool(used), (visits > 0).mean(), pool, held_out))
    return visits, np.array(out, float).T


LATE = lab.Setting(pool=40, batch=6, rollouts=4, steps=7, delay=2)
CASES = {
    "late dps": (lab.Contender(selectors.dps()), LATE),
    "refilled": (lab.Contender(selectors.dynamic_sampling(), waves=2), SETTING),
}


@pytest.fixture(scope="module")
def runs():
    return {case: run(*setting) for case, setting in CASES.items()}


@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_loop(case, runs):
    (contender, setting), found = CASES[case], runs[case]
    visits, (effective, updated, coverage, pool, held_out) = loop(found, contender, setting)
    np.testing.assert_array_equal(found.visits, visits)
    np.testing.assert_array_equal(found.steps.effective, effective)
    np.testing.assert_array_equal(found.steps.updated, updated)
    np.testing.assert_allclose(found.steps.coverage, coverage, rtol=1e-6)
    np.testing.assert_allclose(found.steps.ability_pool, pool, rtol=2e-5)
    np.testing.assert_allclose(found.steps.ability_held_out, held_out, rtol=2e-5)
    assert np.all(found.steps.rollouts == setting.batch * setting.rollouts)
    assert held_out[-1] > held_out[0]


def test_selector_is_driven_as_by_a_training_loop(runs):
    """It chooses what `select` chooses after `observe` has seen the same groups, d steps late."""
    (contender, setting), found = CASES["late dps"], runs["late dps"]
    outer = dpsjax.chain(contender.selector)

    @jax.jit
    def choose(key, state):
        outer_state = selectors.ChainState(state.active, (state,))
        return dpsjax.select(outer, key, outer_state, setting.batch)[0].index

    learn = jax.jit(lambda state, *rows: dpsjax.observe(contender.selector, state, *rows)[1])
    state, key = contender.selector.init(setting.pool), jax.random.key(0)
    nothing = np.full(setting.batch, -1, np.int32)
    for step in range(setting.steps):
        select_key = jax.random.fold_in(jax.random.fold_in(key, 2), step)
        np.testing.assert_array_equal(choose(select_key, state), found.groups.index[step])
        late = step - setting.delay
        rows = [values[late] for values in found.groups[:3]]
        state = learn(state, *(rows if late >= 0 else [nothing, nothing * 0, nothing * 0]))


def test_refilled_batches_are_both_full_and_capped(runs):
    accepted = runs["refilled"].groups
    mixed = (accepted.passes > 0) & (accepted.passes < accepted.trials)
    sizes = [len(used) for used in oracle.refill(mixed, SETTING.batch, 2) if used is not None]
    assert max(sizes) == SETTING.batch and min(sizes) < SETTING.batch


def test_oracle_takes_the_most_informative():
    fixed = students.student(students.slow(own_gain=0.0, shared_gain=0.0), HELD_OUT)
    found = run(lab.Contender(selectors.uniform(), oracle=True), student=fixed)
    state = fixed.init(jax.random.fold_in(jax.random.key(0), 0), SETTING.pool)
    p = np.asarray(fixed.pass_rate(state), float)
    best = np.argsort(-(1 - p**4 - (1 - p) ** 4))[: SETTING.batch]
    for step in range(SETTING.steps):
        assert set(found.groups.index[step]) == set(best)


def test_rollouts_are_allocated_by_what_is_believed():
    """Twice as many for the higher half of the believed rates."""

    def allocate(rate, budget):
        order = jnp.argsort(rate).astype(jnp.int32)
        few = budget // 3 // (SETTING.batch // 2)
        number = jnp.where(jnp.arange(SETTING.batch, dtype=jnp.int32) < 3, few, 2 * few)
        return jnp.zeros(SETTING.batch, jnp.int32).at[order].set(number.astype(jnp.int32))

    selector = selectors.mopps(decay=1.0)
    contender = lab.Contender(selector, allocate=allocate, most=6)
    setting = lab.Setting(pool=10, batch=6, rollouts=4, steps=5)
    found = run(contender, setting)
    a, b = np.ones(10), np.ones(10)
    for step in range(setting.steps):
        index, passes, trials = (x[step] for x in found.groups[:3])
        rate = (a / (a + b))[index]
        np.testing.assert_array_equal(np.sort(trials), [2, 2, 2, 4, 4, 4])
        assert rate[trials == 2].max() <= rate[trials == 4].min() + 1e-6
        assert (passes <= trials).all() and passes.sum() > 0
        a[index] += passes
        b[index] += trials - passes
    assert (found.steps.rollouts == 18).all()
    with pytest.raises(ValueError, match="track_beta or track_solve_rate"):
        run(lab.Contender(selectors.dps(), allocate=allocate, most=6), setting)


def test_screened_prompts_get_the_rest_in_turn():
    """SPEED: waves of 8 prompts x 3, then of 4 passed prompts x 6; each spends the same."""
    contender = lab.Contender(selectors.speed(), screen=3, most=9)
    setting = lab.Setting(pool=40, batch=6, rollouts=4, steps=12)
    found = run(contender, setting)
    assert (found.steps.rollouts == 24).all()
    waiting, updates = 0, 0
    for step in range(12):
        passed = int(found.steps.effective[step])
        assert found.steps.updated[step] == (waiting >= 4)
        if waiting >= 4:
            assert found.steps.groups[step] == 0 and passed == 0
            waiting, updates = waiting - 4, updates + 1
        else:
            assert found.steps.groups[step] == 8
            trials = found.groups.trials[step]
            mixed = (found.groups.passes[step] > 0) & (found.groups.passes[step] < trials)
            assert (trials == 3).all() and mixed.sum() == passed
            waiting += passed
    assert updates >= 3 and found.visits.sum() == 8 * (12 - updates)
    ability = found.steps.ability_pool
    assert np.array_equal(np.diff(ability) != 0, found.steps.updated[1:])


def test_pool_smaller_than_the_batch():
    setting = lab.Setting(pool=4, batch=6, rollouts=4, steps=2)
    found = run(lab.Contender(selectors.uniform()), setting)
    assert np.all(found.steps.groups == 4) and np.all(found.steps.rollouts == 16)


def test_one_trace_for_a_sweep_and_equal_to_single_runs():
    traces = []

    def make(target):
        traces.append(target)
        return lab.Contender(selectors.beta_mean(target=target))

    targets = jnp.array([0.1, 0.5, 0.9], jnp.float32)
    swept = lab.sweep(make, targets, STUDENT, 2, SETTING)
    assert len(traces) == 1
    assert swept.visits.shape == (3, 2, SETTING.pool)
    alone = lab.simulate_seeds(make(0.5), STUDENT, 2, SETTING)
    np.testing.assert_array_equal(swept.visits[1], alone.visits)
    assert not np.array_equal(swept.visits[0], swept.visits[2])


def test_summary_of_a_run(runs):
    found = runs["late dps"]
    short = summarize(found)
    assert set(short) == set(MEASURES)
    effective, groups = found.steps.effective.sum(), 6 * 7
    assert short["effective_ratio"] == pytest.approx(effective / groups)
    assert short["rollouts_per_effective_group"] == pytest.approx(4 * groups / effective)
    assert short["coverage"] == pytest.approx((found.visits > 0).sum() / 40)
    assert short["largest_visits"] == found.visits.max()
    assert found.calibration.prompts == 40 * 7
    assert short["brier"] == pytest.approx(found.steps.brier.mean(), rel=1e-5)
    assert np.isnan(summarize(runs["refilled"])["brier"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lab.Setting(pool=0), "pool=0 must be at least 1"),
        (lambda: lab.Setting(delay=-1), "delay=-1 must be at least 0"),
        (lambda: run(lab.Contender(selectors.uniform(), waves=0)), "waves=0 must be at least 1"),
        (lambda: run(lab.Contender(selectors.speed(), screen=32)), "screen=32 must lie in 1..31"),
        (
            lambda: run(lab.Contender(selectors.speed(), screen=1, most=99)),
            "do not fit a screening",
        ),
        (lambda: run(lab.Contender(selectors.speed(), screen=3, most=9), LATE), "allows no delay"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
