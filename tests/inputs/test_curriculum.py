"""One wrong argument at a time for the curriculum of anybody's loop."""

import numpy as np
import pytest

import dpsjax
from tests.inputs.wrong import Row, complaints

CHAIN = dpsjax.selectors.dps()
GOOD = {"selector": CHAIN, "num_prompts": 6, "batch_size": 2}


def asked(**more):
    curriculum = dpsjax.Curriculum(CHAIN, 6, 2, **more)
    return curriculum, *curriculum.ask_ticket()


def tell(index, rewards):
    curriculum, _, handed_out = asked()
    good = isinstance(index, np.ndarray) and index.shape == (2,) and np.array_equal(index, [0, 1])
    curriculum.tell(handed_out if good else index, rewards)
    return curriculum.table()


def tell_ticket(ticket, rewards):
    curriculum, _, _ = asked()
    curriculum.tell(ticket, rewards)
    return curriculum.table()


def save_and_load(path):
    curriculum, _, _ = asked()
    curriculum.save(path)
    curriculum.load(path)


def settings(**given):
    return dpsjax.Curriculum(**given).ask()


ROWS = {
    "settings": Row(
        settings,
        {**GOOD, "group": 8, "solved": 0.5, "seed": 0, "fingerprint": "text", "outstanding": 4},
        free=frozenset({"data", "device"}),
    ),
    "data": Row(
        lambda data: dpsjax.Curriculum(dpsjax.selectors.adarft(), 6, 2, data=data).ask(),
        {"data": {"difficulty": np.linspace(0, 100, 6, dtype=np.float32)}},
        said={"data": "(?:data|needs)"},
    ),
    "tell": Row(
        tell,
        {"index": np.array([0, 1], np.int32), "rewards": np.ones((2, 3))},
        said={"index": "(?:index|ticket)"},
        loose=True,
    ),
    "tell a ticket": Row(
        tell_ticket,
        {"ticket": 0, "rewards": np.ones((2, 3))},
        said={"ticket": "(?:ticket|index)"},
        loose=True,
    ),
    "drop": Row(lambda ticket: asked()[0].drop(ticket), {"ticket": 0}),
    "batch": Row(lambda ticket: asked()[0].batch(ticket), {"ticket": 0}),
    "feedback": Row(lambda ticket: asked()[0].feedback(ticket), {"ticket": 0}),
    "table": Row(lambda group: asked()[0].table(group), {"group": 8}),
    "fingerprint": Row(dpsjax.fingerprint, {"rows": ["a", "b"]}),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


def test_a_wrong_path_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "curriculum"
    row = Row(save_and_load, {"path": good}, said={"path": "(?:path|x)"})
    assert complaints(row) == []
