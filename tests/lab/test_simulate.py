"""A run against a plain loop, delays, refilled batches, oracles, and one trace for a sweep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.lab import simulate as lab
from dpsjax.lab import students
from dpsjax.lab.contenders import Contender
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
            mixed = (k > 0) & (k < n) if contender.rounds > 1 else n > 0
        accepted.append(mixed)
    if contender.rounds > 1:
        updates = oracle.refill(accepted, setting.batch, contender.rounds)
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
FILLED = selectors.chain(selectors.uniform_epochs(), selectors.accept_mixed())
CASES = {
    "late dps": (Contender(selectors.dps()), LATE),
    "refilled": (Contender(FILLED, rounds=2), dataclasses.replace(SETTING, steps=12)),
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

    def choose(key, state):
        return dpsjax.select(contender.selector, key, state, setting.batch)[0].index

    def learn(state, *rows):
        return dpsjax.observe(contender.selector, state, *rows)[1]

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
    found = run(Contender(selectors.uniform(), oracle=True), student=fixed)
    state = fixed.init(jax.random.fold_in(jax.random.key(0), 0), SETTING.pool)
    p = np.asarray(fixed.pass_rate(state), float)
    best = np.argsort(-(1 - p**4 - (1 - p) ** 4))[: SETTING.batch]
    for step in range(SETTING.steps):
        assert set(found.groups.index[step]) == set(best)


def test_rollouts_are_allocated_by_what_is_believed():
    """Twice as many for the higher half of the believed rates."""

    def split(rate, budget):
        order = jnp.argsort(rate).astype(jnp.int32)
        few = budget // 3 // (SETTING.batch // 2)
        number = jnp.where(jnp.arange(SETTING.batch, dtype=jnp.int32) < 3, few, 2 * few)
        return jnp.zeros(SETTING.batch, jnp.int32).at[order].set(number.astype(jnp.int32))

    selector = selectors.chain(selectors.mopps(decay=1.0), selectors.allocate(split, 4, most=6))
    setting = lab.Setting(pool=10, batch=6, rollouts=4, steps=5)
    found = run(Contender(selector, most=6), setting)
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


def test_screened_prompts_get_the_rest_in_turn():
    """SPEED: waves of 8 prompts x 3, then of 4 passed prompts x 6; each spends the same."""
    contender = Contender(FILLED, screen=(3, 6))
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


def clock():
    """A part that gives every prompt the loss weight 1 + the training steps that passed."""

    def propose(key, proposal, passed):
        weight = 1 + passed.astype(jnp.float32)
        return proposal.weigh(jnp.broadcast_to(weight, proposal.score.shape)), passed

    init = lambda num_prompts, data=None: jnp.zeros((), jnp.int32)  # noqa: E731
    return selectors.Selector(init, propose, advance=lambda passed: passed + 1)


@pytest.mark.parametrize("case", ["at once", "refilled", "until full", "screened"])
def test_time_passes_once_an_update(case):
    """Several waves of one update are one training step to the selector."""
    how = {
        "at once": {},
        "refilled": {"rounds": 2},
        "until full": {"rounds": None},
        "screened": {"screen": (3, 6)},
    }[case]
    setting = lab.Setting(pool=40, batch=6, rollouts=4, steps=12)
    found = run(Contender(selectors.chain(FILLED, clock()), **how), setting)
    before = np.cumsum(found.steps.updated) - found.steps.updated
    assert 3 <= found.steps.updated.sum() < 12
    if case == "at once":  # also where no group was accepted
        before = np.arange(12)
    for step in range(12):
        if case != "screened" or not found.steps.updated[step]:  # where it draws
            assert (found.groups.weight[step] == 1 + before[step]).all()


def test_full_batches_are_waited_for():
    """Without a cap no update has less than a batch of accepted groups."""
    found = run(Contender(FILLED, rounds=None), lab.Setting(pool=40, batch=6, rollouts=4, steps=12))
    mixed = (found.groups.passes > 0) & (found.groups.passes < found.groups.trials)
    used = oracle.refill(mixed, 6, 10**9)
    assert {len(groups) for groups in used if groups is not None} == {6}
    np.testing.assert_array_equal(found.steps.updated, [groups is not None for groups in used])


@pytest.mark.parametrize("oldest", [0, 1, 2])
def test_late_groups_are_as_old_as_the_updates_since(oldest):
    """A part that vetoes old groups: an update that is left out makes later ones younger."""

    def observe(evidence):
        return evidence.replace(accept=evidence.accept & (evidence.age <= oldest))

    young = selectors.stateless(observe=observe)
    found = run(Contender(selectors.chain(selectors.uniform(), young)), LATE)
    made, updates = [], 0
    for step in range(LATE.steps):
        made.append(updates)
        arrived = step - LATE.delay
        updated = arrived >= 0 and updates - made[arrived] <= oldest
        assert found.steps.updated[step] == updated
        updates += updated
    assert updates == {0: 2, 1: 4, 2: 5}[oldest]


def test_pool_smaller_than_the_batch():
    setting = lab.Setting(pool=4, batch=6, rollouts=4, steps=2)
    found = run(Contender(selectors.uniform()), setting)
    assert np.all(found.steps.groups == 4) and np.all(found.steps.rollouts == 16)


def test_one_trace_for_a_sweep_and_equal_to_single_runs():
    traces = []

    def make(target):
        traces.append(target)
        return Contender(selectors.beta_mean(target=target))

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


def test_calibration_is_of_what_inspect_says(runs):
    """Brier score of every step, from the states of a training loop and the true chances."""
    (contender, setting), found = CASES["late dps"], runs["late dps"]
    state, student = contender.selector.init(setting.pool), STUDENT
    learner = student.init(jax.random.fold_in(jax.random.key(0), 0), setting.pool)
    chance = np.asarray(dpsjax.inspect(contender.selector, state, 4).mixed, float)
    truth = oracle.outcome(np.asarray(student.pass_rate(learner), float), 4)[1]
    brier = np.mean(truth * (1 - truth) + (chance - truth) ** 2)
    np.testing.assert_allclose(found.steps.brier[0], brier, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lab.Setting(pool=0), "pool=0 must be at least 1"),
        (lambda: lab.Setting(delay=-1), "delay=-1 must be at least 0"),
        (lambda: run(Contender(selectors.uniform(), rounds=0)), "rounds=0 must be at least 1"),
        (lambda: run(Contender(FILLED, screen=(0, 3))), r"screen\[0\]=0 must be at least 1"),
        (lambda: run(Contender(FILLED, screen=(1, 98))), "do not fit a screening"),
        (lambda: run(Contender(FILLED, screen=(3, 6)), LATE), "allows no delay"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
