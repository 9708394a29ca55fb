"""Geometry3k: original folders and Parquet, the published reward."""

import json
from pathlib import Path

import numpy as np
import pytest

from dpsjax.files import netpbm
from dpsjax.tasks import geometry3k
from dpsjax.tasks.data.columns import Columns, problems_of
from dpsjax.tasks.data.rows import read_rows
from dpsjax.tasks.geometry3k import Geometry3kConfig, well_formed

REAL = Path(__file__).parents[3] / "shared/data/geometry3k"
PNG = netpbm(np.full((28, 28), 255, np.uint8))


def _folder(place, number, **changes):
    values = {
        "problem_text": f"Find x {number}.",
        "choices": ["30", "40", "5 \\sqrt { 3 }", "80"],
        "answer": "ABCD"[number % 4],
        "problem_type_goal": ["Length"],
        "id": number,
    }
    (place / str(number)).mkdir(parents=True)
    (place / str(number) / "data.json").write_text(json.dumps({**values, **changes}))
    (place / str(number) / "img_diagram.png").write_bytes(PNG + bytes([number]))


def test_folders_and_parquet_give_the_same_problems(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra: parquet")
    import pyarrow.parquet as parquet

    for number in range(4):
        _folder(tmp_path / "train", number)
    found = problems_of([tmp_path / "train"], Columns(), suffix="!")
    assert [p.prompt for p in found] == [f"<image>Find x {i}.!" for i in range(4)]
    assert [p.answer["answer"] for p in found] == ["30", "40", "5 \\sqrt { 3 }", "80"]
    assert [p.images for p in found] == [(PNG + bytes([i]),) for i in range(4)]
    assert {p.source for p in found} == {"Length"}
    rows = [
        {"images": [{"bytes": p.images[0], "path": None}], "problem": p.prompt[:-1],
         "answer": p.answer["answer"]}
        for p in found
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    again = problems_of([tmp_path / "train.parquet"], Columns(), suffix="!")
    for ours, theirs in zip(again, found, strict=True):
        assert (ours.prompt, ours.images) == (theirs.prompt, theirs.images)
        assert ours.answer["answer"] == theirs.answer["answer"]
        assert "images" not in ours.answer["row"]


def test_paths_are_beside_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    row = {"problem": "Find x.", "answer": "1", "images": ["a.png"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert problems_of([tmp_path / "rows.jsonl"], Columns())[0].images == (PNG,)
    (tmp_path / "bad.jsonl").write_text(json.dumps({**row, "images": [3]}))
    with pytest.raises(ValueError, match="line 1: a picture must be bytes or a path"):
        problems_of([tmp_path / "bad.jsonl"], Columns())


def test_a_damaged_folder_is_named(tmp_path):
    _folder(tmp_path, 1, answer="E")
    with pytest.raises(ValueError, match=r"data\.json: not a problem of Geometry3k"):
        read_rows(tmp_path)


def test_the_reward_is_the_published_one(tmp_path):
    pytest.importorskip("math_verify", reason="needs the extra: math")
    for number in range(4):
        _folder(tmp_path, number)
    task = Geometry3kConfig(train=(tmp_path,), held_out=1).build()
    assert task.name == "geometry3k" and task.isolated
    problem = next(
        p for p in (*task.train, *task.test) if p.answer["references"][0].startswith("5")
    )
    rewards = {
        "<think>so</think> \\boxed{5\\sqrt{3}}": (1.0, True),
        "\\boxed{\\sqrt{75}}": (1.0, True),
        "<think>so</think> \\boxed{5}": (0.1, False),
        "\\boxed{5}": (0.0, False),
        "<think>5\\sqrt{3}": (0.0, False),
        "": (0.0, False),
    }
    scores = task.score([problem] * len(rewards), list(rewards))
    assert [(s.reward, s.correct) for s in scores] == list(rewards.values())


def test_form():
    assert well_formed("<think>\n</think>\n\\boxed{a}\n")
    for text in (
        "x<think></think>\\boxed{a}",
        "<think>\\boxed{a}</think>",
        "<think></think>\\boxed{",
    ):
        assert not well_formed(text)
    assert not well_formed("<think>" * 100_000)


def test_pictures_are_wanted(tmp_path):
    pytest.importorskip("math_verify", reason="needs the extra: math")
    (tmp_path / "rows.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n' * 3)
    with pytest.raises(ValueError, match="no problem has a picture"):
        Geometry3kConfig(train=(tmp_path / "rows.jsonl",)).build()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not here")
def test_real_problems():
    pytest.importorskip("math_verify", reason="needs the extra: math")
    pytest.importorskip("PIL", reason="needs the extra: vision")
    from dpsjax.policy import VisionConfig, picture_batch

    task = Geometry3kConfig(train=(REAL,), held_out=1).build()
    problems = (*task.train, *task.test)
    assert len(problems) == 10 and len({p.images for p in problems}) == 10
    form = "<think>.</think>\\boxed{%s}"
    right = [form % p.answer["references"][0] for p in problems]
    wrong = [form % (p.answer["references"][0] + "+1") for p in problems]
    assert all(s.reward == 1 for s in geometry3k.score(problems, right))
    assert all((s.reward, s.correct) == (0.1, False) for s in geometry3k.score(problems, wrong))
    vision = VisionConfig(1, 32, 32, 1, 2, (0,))
    images = picture_batch([p.images for p in problems], vision)
    assert images.pixels.shape[0] == 10 and (images.image >= 0).sum(axis=1).min() >= 16
