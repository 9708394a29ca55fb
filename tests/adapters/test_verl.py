"""verl's own synchronous loop with a selector, its engine, workers and queue stood in for."""

import pytest

from tests.adapters.peers import run

pytestmark = pytest.mark.slow  # an environment of its own


def test_killed_and_resumed_is_the_whole_run(tmp_path):
    found = run("verl", tmp_path)
    whole, again = found["whole"], found["again"]
    assert len(whole["asked"]) == 9 and again["asked"] == whole["asked"][4:]
    for name in ("weights", "rate", "metrics"):
        assert again[name] == whole[name], name
    # Failed sessions are not told, and the last part of a session is what counts.
    assert 9 * 4 * 4 > whole["metrics"]["total_rollouts"] > 9 * 4 * 3
    assert 0.1 < sum(whole["rate"]) / 24 < 0.9
    assert "curriculum/effective_ratio" in whole["logged"]
    assert "the belief is lost" in found["refused"]
