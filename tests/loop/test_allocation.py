"""Unequal numbers of rollouts: rows, advantages, weights, metrics and resume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import selectors
from dpsjax.grpo import advantages as strategies
from dpsjax.grpo.config import GRPOConfig
from dpsjax.loop.collect import learn, rollout_batch
from dpsjax.loop.groups import Draw, Groups, of_prompts, of_rows, slots_of
from dpsjax.loop.metrics import read_records
from dpsjax.loop.step import train_step
from dpsjax.policy import Rollouts
from dpsjax.rollouts import budget
from dpsjax.run import outputs
from dpsjax.run.config import (
    CheckpointConfig,
    EvaluationConfig,
    MeshConfig,
    RolloutConfig,
)
from dpsjax.run.selector_settings import settings
from tests.oracles import grpo as oracle
from tests.run import tiny

BATCH, BUDGET = 4, 4 * tiny.GROUP
POOL = 8  # small, so that prompts come again


def test_rows_and_slots_are_inverse(key):
    random = np.random.default_rng(0)
    for _ in range(5):
        number = random.multinomial(20, [0.4, 0.0, 0.3, 0.2, 0.1]).astype(np.int32)
        index = np.array([9, 4, -1, 7, 2], np.int32)
        slots, of_row = slots_of(jnp.array(index), jnp.array(number), 20, 24)
        number[2] = 0  # padding
        wanted = np.repeat(index, number)
        assert of_row.tolist() == [*wanted, *[-1] * (24 - len(wanted))]
        for row in range(len(wanted)):
            assert slots.row[slots.slot[row], slots.place[row]] == row
        assert np.asarray(slots.row < 24).sum(axis=1).tolist() == number.tolist()


def test_values_of_rows_are_those_of_their_prompts():
    index, number = jnp.array([3, 5], jnp.int32), jnp.array([3, 1], jnp.int32)
    slots, _ = slots_of(index, number, 4, 5)
    weight = jnp.array([1.0, 0.5], jnp.float32)
    assert of_rows(slots, weight).tolist() == [1, 1, 1, 0.5, 0]
    rows = jnp.arange(1, 6, dtype=jnp.float32)[:, None]
    table = of_prompts(slots, rows, -1.0)
    assert table.tolist() == [[1, 2, 3, -1], [4, -1, -1, -1]]
    assert of_rows(slots, table).tolist() == [[1], [2], [3], [4], [0]]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (strategies.group_normalized, "normalized"),
        (strategies.centered, "centered"),
        (strategies.leave_one_out, "leave_one_out"),
    ],
)
def test_advantages_by_prompt(function, kind, prepared):
    """Against the oracle on each prompt's own rollouts, with some that have no verdict."""
    _, state = prepared
    random = np.random.default_rng(3)
    number, rows = np.array([5, 0, 1, 4, 2], np.int32), 14
    index = np.array([3, 8, 1, 0, 6], np.int32)
    slots, of_row = slots_of(jnp.array(index), jnp.array(number), 6, rows)
    rewards = random.integers(0, 3, (rows, 1)).astype(np.float32) / 2
    valid = random.random((rows, 1)) < 0.8
    shape = (rows, 1, 2)
    rollouts = Rollouts(
        jnp.ones(shape, jnp.int32), jnp.ones(shape, bool), jnp.zeros(shape), jnp.int32(2)
    )
    rollouts = rollouts._replace(log_probs=rollouts.log_probs.astype(jnp.float32))
    draw = Draw(
        index=of_row,
        weight=jnp.ones(rows, jnp.float32),
        prompt=jnp.ones((rows, 2), jnp.int32),
        prompt_mask=jnp.ones((rows, 2), bool),
        predicted=jnp.full((3, 5), 1 / 3, jnp.float32),
        occupancy=jnp.full(3, 1 / 3, jnp.float32),
        slots=slots,
    )
    groups = Groups(rollouts, jnp.array(rewards), jnp.array(rewards > 0.5), jnp.array(valid))
    selector = selectors.dps()
    state = state._replace(selector=selector.init(32))
    new, offered, report = learn(selector, state, draw, groups)
    batch = rollout_batch(offered, function, None, selector, new.selector)
    report = jax.tree.map(np.asarray, report)
    start = 0
    for slot, size in enumerate(number):
        mine = slice(start, start + size)
        start += size
        assert report.asked[slot] == size and report.trials[slot] == valid[mine].sum()
        assert report.passes[slot] == ((rewards[mine] > 0.5) & valid[mine]).sum()
        if size == 0:
            continue
        kept, of = valid[mine].T, rewards[mine].T
        values, (mixed,) = oracle.advantages(of, kept, kind)
        np.testing.assert_allclose(batch.advantages[mine], values.T, rtol=1e-5, atol=1e-6)
        assert (np.asarray(batch.informative[mine]) == mixed).all()
        assert (np.asarray(batch.mask[mine]).any(axis=2) == valid[mine]).all()
    assert not np.asarray(batch.mask[start:]).any() and (np.asarray(batch.index[start:]) < 0).all()
    assert int(new.rollouts - state.rollouts) == 12 and int(new.position - state.position) == 5
    assert np.asarray(new.visits - state.visits)[index].tolist() == (number > 0).tolist()


@pytest.fixture(scope="module")
def compiled():
    """A run whose prompts get 0 to 6 rollouts, and its first state."""
    return tiny.easy_run(
        tiny.config(
            steps=5,
            selector=settings("knapsack", lowest=0, most=6),
            task=dataclasses.replace(tiny.TASK, problems=POOL),
            checkpoint=CheckpointConfig(every=2),
            evaluation=EvaluationConfig(every=5, problems=6, samples=2),
        )
    )


def test_the_budget_is_spent_where_it_is_worth_most(compiled):
    state, records = tiny.steps(*compiled, count=5)
    a, b = np.ones(POOL), np.ones(POOL)
    for number, record in enumerate(records, 1):
        groups = record["groups"]
        prompts, passes, trials = (np.array(groups[k]) for k in ("prompt", "passes", "trials"))
        assert trials.sum() == BUDGET and record["rollouts"] == number * BUDGET
        mixed = ((passes > 0) & (passes < trials)).sum()
        assert record["groups_in_loss"] == mixed and record["rounds"] == 1
        assert record["effective_ratio"] == mixed / len(prompts)
        if mixed:
            assert record["rollouts_per_effective_group"] == BUDGET / mixed
        assert record["short_batch"] == record["invalid_rollouts"] == 0
        # What it gave is what the belief of before says; beta_mean forgets half at each visit.
        rate = jnp.array(a / (a + b), jnp.float32)[prompts]
        if len(prompts) == BATCH:
            wanted = budget.knapsack(budget.knapsack_value(rate, 6), BUDGET)
            assert wanted.tolist() == trials.tolist()
        a[prompts] = 0.5 * (a[prompts] - 1) + 1 + passes
        b[prompts] = 0.5 * (b[prompts] - 1) + 1 + trials - passes
    assert len({tuple(r["groups"]["trials"]) for r in records}) > 1
    assert int(state.rollouts) == 5 * BUDGET


def test_one_compilation_of_each_stage(compiled):
    run, state = compiled
    tiny.steps(run, state, count=3)
    for stage in run.stages[1:3] + run.stages[4:7]:
        assert stage._cache_size() == 1


def test_a_resumed_run_is_the_run_that_would_have_been(compiled, tmp_path):
    whole = tiny.complete(*compiled, tmp_path / "whole")
    with pytest.raises(tiny.Killed):
        tiny.complete(*compiled, tmp_path / "cut", tiny.die_in_call(compiled[0].stages.generate, 4))
    cut = tiny.complete(*compiled, tmp_path / "cut")
    assert cut["params_digest"] == whole["params_digest"]
    assert cut["selector_digest"] == whole["selector_digest"]
    one, other = (read_records(tmp_path / name / outputs.METRICS) for name in ("whole", "cut"))
    assert list(map(tiny.timeless, one)) == list(map(tiny.timeless, other))


def test_in_a_short_pool_the_others_get_what_is_missing(compiled):
    run, state = compiled
    rows = jnp.arange(POOL, dtype=jnp.int32) < 3
    state = state._replace(selector=state.selector._replace(active=rows))
    after, record, _ = train_step(run, jax.tree.map(jnp.copy, state))
    made = sum(record["groups"]["trials"])
    assert record["short_batch"] == 1 and record["rollouts"] == made == int(after.rollouts)
    assert made == BUDGET and record["invalid_rollouts"] == 0


def test_equal_shares_are_the_run_without_them():
    """Every prompt must get G: the same groups and, but for rounding, the same parameters."""
    every = settings("vip", lowest=4, most=4, inner="uniform")
    found = []
    for selector in (every, settings("uniform")):
        run, state = tiny.easy_run(tiny.config(selector=selector))
        after, records = tiny.steps(run, state, count=1)
        found.append((records[0], after.params))
    one, other = found[0][0], found[1][0]
    for name in ("prompt", "passes", "trials", "state"):
        assert one["groups"][name] == other["groups"][name]
    for name in ("rollouts", "groups_in_loss", "effective_ratio", "tokens", "reward"):
        assert one[name] == other[name]
    for mine, theirs in zip(*(jax.tree.leaves(params) for _, params in found), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"selector": settings("vip", most=8)},
        {"selector": settings("cures", most=16)},
        {"selector": settings("vip", most=8), "grpo": tiny.grpo(advantages="denoised")},
        {
            "selector": settings("knapsack", lowest=2, most=6, inner="dps"),
            "grpo": GRPOConfig(rollouts_per_prompt=tiny.GROUP, mini_batch=2, micro_batch=4),
        },
        {"selector": settings("vip", most=8), "rollout": RolloutConfig(prompts=4, buckets=2)},
    ],
)
def test_allocations_train(changes):
    state, records = tiny.steps(*tiny.easy_run(tiny.config(**changes)), count=3)
    assert all(sum(r["groups"]["trials"]) == BUDGET for r in records)
    assert all(r["skipped_nonfinite"] == 0 for r in records)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_eight_devices_give_the_same_rollouts():
    found = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=4, fsdp=2)):
        chosen = tiny.config(selector=settings("knapsack", lowest=0, most=6), mesh=mesh)
        _, records = tiny.steps(*tiny.easy_run(chosen), count=3)
        found.append([(r["groups"]["prompt"], r["groups"]["trials"]) for r in records])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selector": settings("vip", most=3)}, "group=4 is the mean"),
        ({"selector": settings("vip", lowest=5)}, "between lowest=5"),
        ({"rollout": RolloutConfig(prompts=4, keep=2)}, "rollout.keep=2 needs equal groups"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.prepare(tiny.config(**{"selector": settings("knapsack"), **changes}))
    with pytest.raises(ValueError, match="lowest=2 must be at least 3"):
        settings("vip", lowest=2).recipe({"group": 4})
