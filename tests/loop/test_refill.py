"""Steps of several rounds: what is trained on, what waits, and what a resumed run does."""

import dataclasses

import numpy as np
import pytest
from dpsjax.run.selectors import DynamicSampling

from dpsjax.loop.collect import Collector
from dpsjax.loop.metrics import read_records
from dpsjax.loop.state import digest
from dpsjax.run import outputs
from dpsjax.run.config import CheckpointConfig, EvaluationConfig, MeshConfig
from tests.run import tiny

BATCH = 4


class CappedOnce(Collector):
    """As compiled, but a step ends after one round."""

    def ready(self, waiting, rounds):
        return rounds == 1


@pytest.fixture(scope="module")
def compiled():
    """A run that fills its batches, and its first state."""
    return tiny.easy_run(
        tiny.config(
            steps=5,
            selector=DynamicSampling(),
            checkpoint=CheckpointConfig(every=2),
            evaluation=EvaluationConfig(every=5, problems=6, samples=2),
        )
    )


def mixed(record):
    groups = record["groups"]
    passes, trials = np.array(groups["passes"]), np.array(groups["trials"])
    return int(((passes > 0) & (passes < trials)).sum())


def test_every_accepted_group_is_trained_on_once(compiled):
    state, records = tiny.steps(*compiled, count=5)
    waiting = 0
    for record in records:
        count = len(record["groups"]["prompt"])
        assert count == record["rounds"] * BATCH
        assert record["groups_in_loss"] == BATCH  # a full batch, however many rounds it took
        waiting += mixed(record) - BATCH
        assert record["groups_waiting"] == waiting < BATCH
        assert record["rollouts_per_effective_group"] == count * tiny.GROUP / mixed(record)
        assert record["rejected"] == 0 and record["short_batch"] == 0
    assert int(state.pending.lost) == 0
    assert max(record["rounds"] for record in records) > 1
    total = sum(record["rounds"] for record in records) * BATCH
    assert records[-1]["rollouts"] == total * tiny.GROUP
    assert int(state.position) == total == int(state.visits.sum())


def test_what_waits_is_what_was_rolled_out(compiled):
    state, records = tiny.steps(*compiled, count=3)
    held = [
        prompt
        for record in records
        for prompt, passes in zip(
            record["groups"]["prompt"], record["groups"]["passes"], strict=True
        )
        if 0 < passes < tiny.GROUP
    ]
    size = int(state.pending.size)
    expected = held[3 * BATCH :]
    assert state.pending.groups.index[:size].tolist() == expected


def test_a_capped_step_trains_on_what_there_is(compiled):
    run, state = compiled
    once = CappedOnce(*run.collector)
    _, records = tiny.steps(dataclasses.replace(run, collector=once), state, count=4)
    assert all(record["rounds"] == 1 for record in records)
    assert any(record["groups_in_loss"] < BATCH for record in records)
    assert [r["groups_in_loss"] for r in records] == [min(mixed(r), BATCH) for r in records]


def test_a_policy_that_is_always_wrong_is_asked_the_pool_once(compiled):
    run, state = compiled

    def wrong(problems, responses):
        return [s._replace(reward=0.0, correct=False) for s in tiny.easy_score(problems, responses)]

    run = dataclasses.replace(run, task=dataclasses.replace(run.task, score=wrong))
    after, (record,) = tiny.steps(run, state, count=1)
    assert record["rounds"] == 32 // BATCH and record["coverage"] == 32
    assert record["groups_in_loss"] == 0 and record["skipped_empty"] >= 1
    assert record["rollouts_per_effective_group"] is None
    assert digest(after.params) == digest(state.params)


def test_a_resumed_run_is_the_run_that_would_have_been(compiled, tmp_path):
    """Killed in the middle of a later step, between two of its rounds."""
    whole = tiny.complete(*compiled, tmp_path / "whole")
    records = read_records(tmp_path / "whole" / outputs.METRICS)
    assert records[1]["groups_waiting"] > 0  # the checkpoint after step 2 has groups in it
    calls, last = [], 1 + sum(record["rounds"] for record in records[:3])

    def failing(*arguments):
        calls.append(1)
        if len(calls) == last:
            raise tiny.Killed
        return compiled[0].stages.generate(*arguments)

    with pytest.raises(tiny.Killed):
        tiny.complete(*compiled, tmp_path / "cut", failing)
    cut = tiny.complete(*compiled, tmp_path / "cut")
    assert cut["params_digest"] == whole["params_digest"]
    assert cut["selector_digest"] == whole["selector_digest"]
    again = read_records(tmp_path / "cut" / outputs.METRICS)
    assert list(map(tiny.timeless, again)) == list(map(tiny.timeless, records))


@pytest.mark.slow
def test_eight_devices_wait_for_the_same_groups():
    found = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=4, fsdp=2)):
        run, state = tiny.easy_run(tiny.config(selector=DynamicSampling(), mesh=mesh))
        state, records = tiny.steps(run, state, count=3)
        size = int(state.pending.size)
        found.append(
            (
                [r["groups"]["prompt"] for r in records],
                [r["groups"]["passes"] for r in records],
                state.pending.groups.index[:size].tolist(),
            )
        )
    assert found[0] == found[1]
