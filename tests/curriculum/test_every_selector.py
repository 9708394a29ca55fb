"""Whatever the selector: the object does what the pure functions do, and survives being killed."""

import jax
import numpy as np
import pytest

from dpsjax import Curriculum
from tests.curriculum.play import B, N, by_hand, in_parts, rewards_of, same_state, train
from tests.selectors.table import CHAINS, OWN, RECIPES, data

STEPS, KILLED = 5, 2
# Those that may offer fewer prompts than a batch.
SHORT = {name for name in CHAINS if "strict" in name or name in ("greso, strict", "cool-down")}

CASES = [
    *RECIPES,
    *(pytest.param(name, marks=pytest.mark.slow) for name in (CHAINS | OWN) if name not in SHORT),
]


def kill_points(curriculum, folder):
    """Run on, saving at every point of one step."""
    asked = train(curriculum, KILLED)
    curriculum.save(folder / "between")
    index = curriculum.ask()
    asked.append(index.tolist())
    curriculum.save(folder / "asked")
    rewards = rewards_of(index, KILLED)
    curriculum.tell(index[:1], rewards[:1])
    curriculum.save(folder / "told in part")
    curriculum.tell(index[1:], rewards[1:])
    curriculum.save(folder / "told")
    return asked + train(curriculum, STEPS, KILLED + 1)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_point_or_told_in_parts_it_is_the_plain_loop(name, tmp_path):
    known, build = data(N), (RECIPES | CHAINS | OWN)[name]
    selector = build()

    def fresh():
        return Curriculum(selector, N, B, data=known)

    whole = fresh()
    asked, state = by_hand(selector, STEPS, known)
    assert kill_points(whole, tmp_path) == asked
    jax.tree.map(np.testing.assert_array_equal, whole.state, state)
    for point, step in (("between", 2), ("asked", 2), ("told in part", 2), ("told", 3)):
        again = fresh()
        again.load(tmp_path / point)
        assert train(again, STEPS, step) == asked[step:], point
        same_state(again, whole)
    pieces = fresh()
    for step in range(STEPS):
        in_parts(pieces, pieces.ask(), rewards_of(asked[step], step))
    same_state(pieces, whole)
    # Made anew, as another process would, it describes itself in the same words.
    assert Curriculum(build(), N, B, data=known)._settings == whole._settings
