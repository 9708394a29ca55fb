"""Drawn geometry: exact answers, pictures that hold all of the question, splits for ever."""

import numpy as np
import pytest

from dpsjax.tasks import geometry
from dpsjax.tasks.base import IMAGE
from dpsjax.tasks.geometry import RULES, Figure, GeometryConfig, picture, verify, warm_start


def _pixels(data):
    header, raw = data.split(b"255\n", 1)
    side = int(header.split()[1])
    return np.frombuffer(raw, np.uint8).reshape(side, side)


@pytest.fixture(scope="module")
def task():
    return geometry.geometry(60, 24, seed=3)


def test_answers_are_those_of_the_theorems(task):
    """By Euclid's propositions, from the measures in a problem's id, without the task's rules."""
    for problem in (*task.train, *task.test):
        measures = [int(part) for part in problem.id.split(":")[1].split(",")]
        degrees = {
            "third angle": lambda a, b: 180 - (a + b),
            "midline": lambda a: a / 2,
            "corresponding angles": lambda a: a,
            "interior angles": lambda a: 180 - a,
            "inscribed angle": lambda a: a / 2,
            "diameter": lambda a: a + a,
        }[problem.source](*measures)
        assert float(problem.answer) == degrees > 0
        assert verify(problem.answer, problem.answer).correct
        for rule in RULES.values():
            assert rule.answer is not rule.habit


def test_the_question_stands_in_the_picture_alone(task):
    assert {problem.prompt for problem in task.train} == {f"{IMAGE}x="}
    assert len({problem.images for problem in task.train}) == 60
    assert len({problem.answer for problem in task.train}) > 10
    one, other = (Figure("third angle", m, (0, 0), 0, 0) for m in ((60, 50), (60, 80)))
    change = _pixels(picture(one)) != _pixels(picture(other))
    rows, columns = np.nonzero(change)
    assert 0 < change.sum() < 30 and rows.min() > 35 and columns.min() > 28  # the second label


def test_pictures_are_black_lines_on_white_and_grow(task):
    for problem in task.train[:12]:
        pixels = _pixels(problem.images[0])
        assert pixels.shape == (56, 56)
        assert pixels.min() < 20 and (pixels > 200).mean() > 0.6
    figure = Figure("diameter", (40,), (0, 0), 2, 0)
    small, large = _pixels(picture(figure)), _pixels(picture(figure, 3))
    means = large.reshape(56, 3, 56, 3).mean(axis=(1, 3))
    assert large.shape == (168, 168) and np.abs(means - small).mean() < 10


def test_the_same_arguments_give_the_same_bytes(task):
    again = geometry.geometry(60, 24, seed=3)
    assert again.fingerprint() == task.fingerprint()
    assert geometry.geometry(60, 24, seed=4).fingerprint() != task.fingerprint()
    assert [p.images for p in again.train] == [p.images for p in task.train]


def test_splits_share_nothing_and_rules_take_turns(task):
    other = geometry.geometry(60, 24, seed=4)
    train, test = ({p.id for pool in pools for p in pool} for pools in (
        (task.train, other.train), (task.test, other.test)
    ))  # fmt: skip
    pairs = warm_start(0, figures=48)
    warm = {next(pairs)[0].id for _ in range(100)}
    assert not train & test and not warm & (train | test)
    assert [p.source for p in task.train[:6]] == list(RULES)
    counts = [sum(p.source == rule for p in task.test) for rule in RULES]
    assert counts == [4] * 6


def test_the_warm_start_is_wrong_by_habit():
    pairs = warm_start(1, figures=60)
    seen = [next(pairs) for _ in range(1500)]
    for name, rule in RULES.items():
        right = [answer == p.answer for p, answer in seen if p.source == name]
        # a few of the habits' answers happen to be right
        assert abs(np.mean(right) - rule.right) < 0.2


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"rules=.*third angle"):
        geometry.geometry(6, 0, rules=("cosine",))
    with pytest.raises(ValueError, match=r"only .* different figures of 'midline' for test"):
        geometry.geometry(1, 500, rules=("midline",))
    with pytest.raises(ValueError, match="scale"):
        geometry.geometry(6, 0, scale=0)


def test_settings_build_the_task():
    task = GeometryConfig(problems=6, held_out=6, rules=("diameter",)).build()
    assert {p.source for p in task.train} == {"diameter"}
    assert task.tokenizer.encode(task.train[0].prompt)[0] == task.tokenizer.image_id


@pytest.mark.parametrize("response", ["", "٤٠", "40 ", "040", "x", "40\x00", "-40", "<image>"])
def test_hostile_responses_are_wrong(response):
    assert verify(response, "40").reward == 0
