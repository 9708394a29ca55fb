"""prime-rl's own curriculum and task sampler, its dispatcher and engine stood in for."""

import pytest

from tests.adapters.peers import run

pytestmark = pytest.mark.slow  # an environment of its own


def test_killed_and_resumed_is_the_whole_run(tmp_path):
    found = run("prime_rl", tmp_path)
    assert found["resumed"] == found["asked"][3:]
    assert found["again"] == found["out_then"] != []
    whole, late = found["metrics"]
    # 24 groups were begun; of every fifth nothing was heard, of two of them before the kill.
    assert (whole.pop("sampler/pending"), late.pop("sampler/pending")) == (4, 2)
    assert late == whole
    assert found["rates"][0] == found["rates"][1]
    assert sum(found["rollouts"]) == 20 * 4 == whole["sampler/total_rollouts"]
    assert all(name.startswith("sampler/") for name in whole)
