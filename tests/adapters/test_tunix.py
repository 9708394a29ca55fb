"""GRPOLearner with a selector: killed and resumed it is the whole run, also over two iterations."""

import shutil

import pytest

from tests.adapters.peers import run

pytestmark = pytest.mark.slow  # an environment of its own, half a minute a run


@pytest.mark.parametrize(
    ("options", "updates", "asks"),
    [
        ((), 1, 4),
        (("micro=2",), 1, 4),  # rewards come in parts
        (("micro=2", "iterations=2"), 2, 4),
    ],
    ids=["plain", "micro-batches", "two iterations"],
)
def test_killed_and_resumed_is_the_whole_run(options, updates, asks, tmp_path):
    steps, save = asks * updates, 2 * updates
    whole = run("tunix", tmp_path / "run", steps, f"save={save}", *options)
    assert len(whole["asked"]) == asks
    assert whole["metrics"]["total_rollouts"] == asks * 4 * 4
    for folder in ("actor", ""):
        shutil.rmtree(tmp_path / "run" / folder / str(steps), ignore_errors=True)
    again = run("tunix", tmp_path / "run", steps, f"save={save}", *options)
    assert again["asked"] == whole["asked"][2:]
    for name in ("weights", "rollouts", "rate", "metrics"):
        assert again[name] == whole[name], name
