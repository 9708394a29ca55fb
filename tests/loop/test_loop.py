import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import hmm
from dpsjax.loop.state import digest
from dpsjax.loop.step import train_step
from dpsjax.run.config import MeshConfig, RolloutConfig
from dpsjax.run.outputs import real_rows
from dpsjax.run.setup import make_mesh, prepare
from dpsjax.run.training import train
from dpsjax.tasks.base import Score
from dpsjax.tasks.countdown import CountdownConfig
from tests.run import tiny


@pytest.fixture(scope="module")
def trained(prepared):
    return tiny.steps(*prepared, count=4)


def test_records_count_what_happened(prepared, trained):
    run, start = prepared
    state, records = trained
    visits = np.zeros(len(run.task.train), int)
    for number, record in enumerate(records, 1):
        groups = record["groups"]
        np.add.at(visits, groups["prompt"], 1)
        rates = np.array(groups["passes"]) / np.array(groups["trials"])
        assert record["step"] == number
        assert record["rollouts"] == number * 4 * tiny.GROUP
        assert len(set(groups["prompt"])) == 4 and groups["trials"] == [tiny.GROUP] * 4
        assert record["accuracy"] == pytest.approx(rates.mean())
        assert record["reward"] == pytest.approx(record["accuracy"])  # rewards are 0 or 1 here
        assert record["effective_ratio"] == np.mean((rates > 0) & (rates < 1))
        assert record["all_wrong"] == np.sum(rates == 0)
        assert record["all_right"] == np.sum(rates == 1)
        assert groups["state"] == [0 if r == 0 else 2 if r == 1 else 1 for r in rates]
        assert record["coverage"] == np.sum(visits > 0)
        assert sum(record["occupancy"]) == pytest.approx(1, abs=1e-5)
        assert np.allclose(np.sum(groups["predicted"], axis=0), 1, atol=1e-5)
        assert record["groups_in_loss"] == round(record["effective_ratio"] * 4)
        assert record["skipped_nonfinite"] == 0
        assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert any(record["groups_in_loss"] for record in records)
    assert state.visits.tolist() == visits.tolist()
    assert int(state.step) == 4 and int(state.position) == 16
    assert digest(state.params) != digest(start.params)
    assert jax.tree.structure(state) == jax.tree.structure(start)


def test_a_step_takes_the_buffers_of_the_state_before_it(prepared, trained):
    """Parameters, moments and beliefs are donated: no second copy of them is made."""
    run, start = prepared
    own = jax.tree.map(jnp.copy, start)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(own.params)}
    after, _, _ = train_step(run, own)
    donated = jax.tree.leaves((own.params, own.opt_state, own.selector, own.visits))
    assert donated and all(leaf.is_deleted() for leaf in donated)
    held = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after.params)}
    assert held & pointers  # the new ones lie where the old ones lay


def test_dps_predicts_from_what_it_saw(trained):
    _, records = trained
    first, second = records[0]["groups"], records[1]["groups"]
    assert np.allclose(first["predicted"], 1 / 3, atol=1e-6)
    # golden: partial 0.4 > never seen 1/3 > seen unsolved or solved 0.3, so mixed groups return
    mixed = {p for p, s in zip(first["prompt"], first["state"], strict=True) if s == 1}
    assert mixed and mixed <= set(second["prompt"])
    place = [second["prompt"].index(p) for p in mixed]
    assert np.allclose(np.array(second["predicted"])[:, place].T, [0.3, 0.4, 0.3], atol=1e-6)


def test_long_responses_lose_a_part_of_their_rewards_in_tokens(prepared):
    """DAPO, equation 13: nothing before the buffer, all of the penalty at the limit."""
    run, state = prepared
    limit = run.task.response_tokens
    settings = RolloutConfig(prompts=4, overlong_buffer=limit - 2, overlong_penalty=0.5)
    punished = dataclasses.replace(run, overlong=settings.overlong(limit))
    _, _, done = train_step(run, jax.tree.map(jnp.copy, state))
    _, record, fined = train_step(punished, jax.tree.map(jnp.copy, state))
    lengths = np.asarray(done.batch.mask.sum(axis=2))
    expected = -0.5 * np.maximum(lengths - 2, 0) / (limit - 2)
    assert len(np.unique(expected)) > 1 and expected.min() == -0.5
    for line, before in zip(fined.responses, done.responses, strict=True):
        loss = -0.5 * max(line["tokens"] - 2, 0) / (limit - 2)
        assert line["reward"] == pytest.approx(before["reward"] + loss)
        assert line["correct"] == before["correct"]
    right = record["accuracy"]  # what is believed knows nothing of lengths
    assert record["reward"] == pytest.approx(right + expected.mean(), abs=1e-6)
    with pytest.raises(ValueError, match="overlong_buffer=99 must be at most the 8 tokens"):
        RolloutConfig(overlong_buffer=99).overlong(limit)


def test_a_reward_for_form_leaves_an_all_wrong_group_unsolved(prepared):
    """The policy learns from it; the belief about every prompt is that of a group of zeros."""
    run, start = prepared

    def form(problems, responses):
        return [Score(0.1 * (number % 2), False, "wrong") for number in range(len(responses))]

    def zeros(problems, responses):
        return [Score(0.0, False, "wrong") for _ in responses]

    ends = []
    for scorer in (form, zeros):
        wrong = dataclasses.replace(run, task=dataclasses.replace(run.task, score=scorer))
        ends.append(tiny.steps(wrong, start, count=2))
    (formed, records), (plain, silent) = ends
    for record in records:
        assert record["groups_in_loss"] == 4 and record["reward"] == pytest.approx(0.05)
        assert record["groups"]["state"] == [0] * 4 and record["all_wrong"] == 4
        assert record["effective_ratio"] == 0
    assert not any(record["groups_in_loss"] for record in silent)
    assert digest(formed.selector) == digest(plain.selector) != digest(start.selector)
    assert digest(formed.params) != digest(plain.params)


def test_each_stage_compiles_once(prepared):
    run, start = prepared
    stages = run.stages[1:3] + run.stages[4:7]
    for stage in stages:
        stage.clear_cache()  # other files of this process may have used the same run
    tiny.steps(run, start, count=3)
    assert [stage._cache_size() for stage in stages] == [1] * 5


def test_the_state_before_a_step_decides_it(prepared, trained):
    run, start = prepared
    state, records = tiny.steps(run, start, count=2)
    resumed, rest = tiny.steps(run, state, count=2)
    assert digest(resumed) == digest(trained[0])
    assert [tiny.timeless(r) for r in records + rest] == [tiny.timeless(r) for r in trained[1]]


def test_train_evaluates_before_during_and_after(prepared):
    run, start = prepared
    lines = []
    for after, record, _ in train(run, jax.tree.map(jax.numpy.copy, start)):
        state = after
        lines.append(record)
    assert [line["step"] for line in lines] == [1, 2]
    assert "held_out_before_accuracy" in lines[0] and "held_out_before_accuracy" not in lines[1]
    assert all(0 <= line["held_out_accuracy"] <= 1 for line in lines)
    assert set(lines[1]["held_out_by_source"]) == {"2 numbers"}
    tried = lines[0]["held_out_before_by_temperature"]
    assert set(tried) == {"0.25", "0.5", "0.75"} and all(0 <= rate <= 1 for rate in tried.values())
    accuracy = run.evaluation.accuracy
    assert accuracy(state.params) == accuracy(state.params)  # same problems, same keys


def test_a_reward_that_is_not_finite_makes_its_rollout_invalid(prepared):
    run, start = prepared

    def broken(problems, responses):
        scores = tiny.easy_score(problems, responses)
        return [scores[0]._replace(reward=float("nan")), *scores[1:]]

    run = dataclasses.replace(run, task=dataclasses.replace(run.task, score=broken))
    state, (record,) = tiny.steps(run, start, count=1)
    assert record["groups"]["trials"] == [tiny.GROUP - 1] + [tiny.GROUP] * 3
    assert np.isfinite(record["reward"]) and record["skipped_nonfinite"] == 0
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one():
    """Data, fsdp and tensor parallel at once; 33 prompts leave rows to fill up on 8 devices, and
    so do two mini-batches of 3 prompts on the 4 that share a batch."""
    task = CountdownConfig(**{**vars(tiny.TASK), "problems": 33})
    rollout = RolloutConfig(prompts=6)
    grpo = dataclasses.replace(tiny.grpo(), mini_batch=3)
    results = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=2, fsdp=2, tensor=2)):
        run, state = tiny.easy_run(tiny.config(task=task, rollout=rollout, grpo=grpo, mesh=mesh))
        before = jax.tree.map(np.asarray, state.params)
        state, records = tiny.steps(run, state, count=5)
        belief = real_rows(state.selector, run.stages.axes, 33)
        results.append((before, jax.tree.map(np.asarray, state.params), belief, records, state))
    one, eight = results
    query = eight[4].params["layers"]["query_dnh"]
    assert len({str(shard.index) for shard in query[...].addressable_shards}) == 4
    is_belief = lambda node: isinstance(node, hmm.Belief)  # noqa: E731
    nodes = jax.tree.leaves(eight[4].selector, is_leaf=is_belief)
    excess = next(node for node in nodes if is_belief(node)).excess[0][0]
    assert excess.shape[-1] == 40 and len({str(s.index) for s in excess.addressable_shards}) == 8
    for alone, shared in zip(one[3], eight[3], strict=True):
        assert alone["groups"]["prompt"] == shared["groups"]["prompt"]
        assert alone["groups"]["passes"] == shared["groups"]["passes"]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one[0], one[1])
    assert max(jax.tree.leaves(moved)) > 1e-3
    close = jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one[1], eight[1])
    assert jax.tree.leaves(close) == []
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one[2], eight[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": MeshConfig(data=3, fsdp=3)}, "needs 9 devices, and there are 8"),
        ({"rollout": RolloutConfig(prompts=33)}, "prompts=33 must not exceed"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(tiny.config(**changes))


def test_mesh_takes_all_devices_by_default():
    assert dict(make_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(MeshConfig(tensor=2)).shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert make_mesh(MeshConfig(data=2)).size == 2
