"""Steps in two rounds: who gets the rest, what is learned from, and what a resumed run does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.loop.metrics import read_records
from dpsjax.loop.step import train_step
from dpsjax.report.prompt_table import histories
from dpsjax.report.trace_file import trace_rows
from dpsjax.run import outputs
from dpsjax.run.config import CheckpointConfig, EvaluationConfig, MeshConfig
from dpsjax.run.selector_settings import settings
from tests.oracles import grpo as oracle
from tests.run import tiny

BATCH, SCREEN, GROUP = 4, 2, 5
SPEED = settings("speed", screen=SCREEN, rest=GROUP - SCREEN)


@pytest.fixture(scope="module")
def compiled():
    """A run that screens, and its first state."""
    return tiny.easy_run(
        tiny.config(
            steps=5,
            selector=SPEED,
            checkpoint=CheckpointConfig(every=2),
            evaluation=EvaluationConfig(every=5, problems=6, samples=2),
        )
    )


def split_rows(record):
    """Rows of the screening, and of what came after."""
    groups = record["groups"]
    rows = list(zip(*(groups[k] for k in ("prompt", "passes", "trials", "state")), strict=True))
    return [r for r in rows if r[3] >= 0], [r for r in rows if r[3] < 0]


def test_prompts_that_pass_get_the_rest_in_turn(compiled):
    state, records = tiny.steps(*compiled, count=5)
    queue, made = [], 0
    for record in records:
        first, rest = split_rows(record)
        assert len(first) == BATCH * (record["rounds"] - 1)
        assert all(trials == SCREEN for _, _, trials, _ in first)
        queue += [prompt for prompt, passes, trials, _ in first if 0 < passes < trials]
        assert [prompt for prompt, *_ in rest] == queue[:BATCH]
        assert all(trials == GROUP - SCREEN for _, _, trials, _ in rest)
        queue = queue[BATCH:]
        mixed = sum(0 < passes < trials for _, passes, trials, _ in first)
        assert record["effective_ratio"] == mixed / len(first)
        spent = SCREEN * len(first) + (GROUP - SCREEN) * len(rest)
        made += spent
        assert record["rollouts"] == made
        assert record["rollouts_per_effective_group"] == spent / mixed
        assert record["groups_waiting"] == len(queue)
        assert record["groups_in_loss"] == BATCH  # mixed already, whatever the rest was
        assert record["short_batch"] == record["invalid_rollouts"] == record["rejected"] == 0
    assert max(record["rounds"] for record in records) > 2
    size = int(state.pending.size)
    assert state.pending.groups.index[:size].tolist() == queue
    assert int(state.rollouts) == made
    assert int(state.visits.sum()) == int(state.position)


def test_the_policy_learns_from_both_parts_of_a_group(compiled):
    run, state = compiled
    state = jax.tree.map(jnp.copy, state)
    taken = {}

    def watch(state, held, groups, reference):
        taken["held"], taken["groups"] = jax.tree.map(np.asarray, (held, groups))
        return run.stages.update(state, held, groups, reference)

    _, _, step = train_step(tiny.with_stages(run, update=watch), state)
    held, groups, batch = taken["held"], taken["groups"], jax.tree.map(np.asarray, step.batch)
    rewards = np.concatenate([held.rewards, groups.rewards], axis=1)
    assert rewards.shape == (BATCH, GROUP)
    expected, _ = oracle.advantages(rewards, np.ones(rewards.shape, bool), "normalized")
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.tokens[:, :SCREEN], held.tokens)
    np.testing.assert_array_equal(batch.tokens[:, SCREEN:], groups.rollouts.tokens)
    np.testing.assert_array_equal(batch.log_probs[:, :SCREEN], held.log_probs)
    assert batch.accept.all() and (batch.weight == 1).all()


def test_trace_and_table_hold_all_rollouts_of_a_prompt(compiled):
    _, records = tiny.steps(*compiled, count=3)
    for record in records:
        rows = list(trace_rows(record))
        assert len({row["prompt"] for row in rows}) == len(rows)
        assert sum(row["trials"] for row in rows) == sum(record["groups"]["trials"])
    visits = histories(records, 32)
    assert sum(v.trials for of in visits for v in of) == records[-1]["rollouts"]
    assert all(len({v.step for v in of}) == len(of) for of in visits)  # one a step


def test_a_policy_that_is_always_wrong_trains_on_nothing(compiled):
    run, state = compiled

    def wrong(problems, responses):
        return [s._replace(reward=0.0, correct=False) for s in tiny.easy_score(problems, responses)]

    run = dataclasses.replace(run, task=dataclasses.replace(run.task, score=wrong))
    _, (record,) = tiny.steps(run, state, count=1)
    assert record["rounds"] == 32 // BATCH + 1 and record["groups_in_loss"] == 0
    assert record["skipped_empty"] >= 1 and record["rollouts"] == 32 * SCREEN


def test_one_compilation_of_each_stage(compiled):
    run, state = compiled
    tiny.steps(run, state, count=3)
    stages = run.stages
    for stage in (stages.generate, stages.offer, stages.take, stages.rest, stages.update):
        assert stage._cache_size() == 1


def test_a_resumed_run_is_the_run_that_would_have_been(compiled, tmp_path):
    """Killed in the middle of a later step, between two of its rounds."""
    whole = tiny.complete(*compiled, tmp_path / "whole")
    records = read_records(tmp_path / "whole" / outputs.METRICS)
    assert records[1]["groups_waiting"] > 0  # the checkpoint after step 2 has prompts in it
    last = 1 + sum(record["rounds"] - 1 for record in records[:3])
    with pytest.raises(tiny.Killed):
        tiny.complete(
            *compiled, tmp_path / "cut", tiny.die_in_call(compiled[0].stages.generate, last)
        )
    cut = tiny.complete(*compiled, tmp_path / "cut")
    assert cut["params_digest"] == whole["params_digest"]
    assert cut["selector_digest"] == whole["selector_digest"]
    again = read_records(tmp_path / "cut" / outputs.METRICS)
    assert list(map(tiny.timeless, again)) == list(map(tiny.timeless, records))


def test_advantages_by_a_belief_of_the_screening_alone_are_refused():
    with pytest.raises(ValueError, match=r"loss\.advantages='denoised' needs"):
        tiny.config(selector=SPEED, grpo=tiny.grpo(advantages="denoised"))


@pytest.mark.slow
def test_eight_devices_let_the_same_prompts_pass():
    found = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=4, fsdp=2)):
        chosen = tiny.config(selector=SPEED, mesh=mesh)
        state, records = tiny.steps(*tiny.easy_run(chosen), count=3)
        size = int(state.pending.size)
        held = state.pending.groups.index[:size].tolist()
        found.append(([(r["groups"]["prompt"], r["groups"]["passes"]) for r in records], held))
    assert found[0] == found[1]
