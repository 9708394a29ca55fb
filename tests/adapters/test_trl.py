"""GRPOTrainer with a selector: killed and resumed it is the whole run, in any kind of cycle."""

import shutil

import pytest

from tests.adapters.peers import run

pytestmark = pytest.mark.slow  # an environment of its own, half a minute a run


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ((), 6),
        (("gradient_accumulation_steps=2", "steps_per_generation=2"), 6),
        # Each batch serves two steps: it is killed in the middle of a cycle.
        (("num_iterations=2",), 3),
    ],
    ids=["plain", "accumulation", "two iterations"],
)
def test_killed_and_resumed_is_the_whole_run(options, asks, tmp_path):
    whole = run("trl", tmp_path, 6, "save_steps=3", *options)
    again = run("trl", tmp_path, 6, "save_steps=3", "resume=3", *options)
    assert len(whole["asked"]) == asks
    assert again["asked"] == whole["asked"][-len(again["asked"]) :]
    assert 0 < len(again["asked"]) < asks
    for name in ("weights", "rollouts", "rate", "metrics"):
        assert again[name] == whole[name], name
    assert "curriculum/effective_ratio" in whole["logged"]
    # Evaluation does not tell, and a reward of None is no verdict.
    batch = 8 // 4 * (2 if "steps_per_generation=2" in options else 1)
    assert whole["metrics"]["total_rollouts"] == asks * 4 * batch
    assert whole["rollouts"][3] == 0


def test_two_processes_believe_the_same(tmp_path):
    """Each has half of a batch; what is asked and told is that of one process."""
    whole = run("trl", tmp_path, 4, "per_device_train_batch_size=4", "save_steps=2", processes=2)
    shutil.rmtree(tmp_path / "checkpoint-4")
    again = run("trl", tmp_path, 4, "per_device_train_batch_size=4", "resume=2", processes=2)
    assert again["asked"] == whole["asked"][2:]
    assert again["weights"] == whole["weights"]
    assert again["metrics"] == whole["metrics"]
    assert whole["metrics"]["total_rollouts"] == 4 * 8
