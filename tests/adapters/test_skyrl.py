"""SkyRL's own loop with a selector, its engine and workers stood in for."""

import pytest

from tests.adapters.peers import run

pytestmark = pytest.mark.slow  # an environment of its own


@pytest.mark.parametrize("sampling", [(), ("filter",)], ids=["plain", "dynamic sampling"])
def test_killed_and_resumed_is_the_whole_run(sampling, tmp_path):
    found = run("skyrl", tmp_path, *sampling)
    whole, again = found["whole"], found["again"]
    assert again["asked"] == whole["asked"][-len(again["asked"]) :]
    assert 0 < len(again["asked"]) < len(whole["asked"])
    for name in ("weights", "rate", "metrics"):
        assert again[name] == whole[name], name
    # Every round is told, also one that dynamic sampling throws away; a step passes once.
    assert whole["metrics"]["total_rollouts"] == len(whole["asked"]) * 4 * 4
    assert whole["metrics"]["step"] == 8 and (len(whole["asked"]) == 9) != bool(sampling)
    assert "curriculum/effective_ratio" in whole["logged"]
    assert "no belief that fits" in found["refused"]
