"""Whole runs of policies that see: drawn geometry from random weights, files with a folder."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dpsjax import cli
from dpsjax.files import netpbm
from dpsjax.loop.prompts import longest, sight_of, tokenize
from dpsjax.policy import stored_config, tiny_vision
from dpsjax.run.language import for_language_model
from dpsjax.run.setup import prepare
from dpsjax.tasks.base import Problem, Score
from dpsjax.tasks.geometry import GeometryConfig, geometry
from tests.run import tiny

TASK = GeometryConfig(problems=12, held_out=6)


@pytest.mark.slow
def test_a_run_learns_from_pictures():
    run, state = prepare(tiny.config(task=TASK))
    assert run.task.prompt_tokens == 2 + 4
    assert run.prompts.images.pixels.shape == (12, 16, 196)
    pixels = {p.images[0][-56 * 56 :] for p in run.task.train}
    assert len(pixels) == 12

    def score(problems, responses):
        right = [bool(r) and r[0] == p.answer[0] for p, r in zip(problems, responses, strict=True)]
        return [Score(float(good), good, "" if good else "another") for good in right]

    run = dataclasses.replace(run, task=dataclasses.replace(run.task, score=score))
    before = jax.tree.map(np.asarray, state.params)
    after, records = tiny.steps(run, state, 6)
    assert all(record["skipped_nonfinite"] == 0 for record in records)
    assert any(record["groups"] for record in records)
    moved = np.abs(
        after.params["vision"]["patch_ctpqd"][...] - before["vision"]["patch_ctpqd"][...]
    )
    assert moved.max() > 0  # the eye learns too
    assert run.stages.update._cache_size() == 1 and run.stages.generate._cache_size() == 1


@pytest.mark.slow
def test_a_folder_that_sees_is_trained_on_files_and_written_back(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="needs the extra: hf")
    pytest.importorskip("jinja2", reason="needs the extra: hf")
    pytest.importorskip("PIL", reason="needs the extra: vision")
    from tests.run.folders import write_folder

    write_folder(tmp_path / "model", sees=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reward_of_pictures.py").write_text(
        "def early(prompts, completions, **columns):\n"
        "    return [float('a' <= c[:1].lower() <= 'm') for c in completions]\n",
        encoding="utf-8",
    )
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        size = (28, 28 * (1 + number % 3))
        (tmp_path / f"{number}.ppm").write_bytes(netpbm(rng.integers(0, 256, (*size, 3), np.uint8)))
        shown = [f"{number}.ppm"] * (number % 3)  # none, one or two
        rows.append({"id": number, "prompt": "Look! " + "<image>" * len(shown), "images": shown})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = (
        "train jsonl --task.train rows.jsonl --task.reward reward_of_pictures:early --model model"
    )
    words += " --steps 2 --prompts 4 --grpo.rollouts-per-prompt 2 --task.response-tokens 4"
    words += " --task.held-out 2 --evaluation.samples 1 --mesh.data 1 --out out"
    assert cli.main(words.split()) == 0
    assert stored_config(tmp_path / "out/model") == stored_config(tmp_path / "model")


def test_pictures_stand_where_the_question_says(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra: hf")
    pytest.importorskip("jinja2", reason="needs the extra: hf")
    pytest.importorskip("PIL", reason="needs the extra: vision")
    from tests.run.folders import write_folder

    write_folder(tmp_path, sees=True)
    task = for_language_model(geometry(6, 6, scale=2), tmp_path)
    vision = stored_config(tmp_path).vision
    prompt = "<|user|><|vision_start|><|image_pad|><|vision_end|>The figure"
    assert task.train[0].prompt.startswith(prompt)
    sight = sight_of(task, vision)
    assert sight.patches == 64
    found = tokenize(task.train, task.tokenizer, longest(task, vision), sight=sight)
    assert ((found.tokens == 263).sum(axis=1) == 16).all()
    assert found.images.pixels.shape == (6, 64, 3 * 196)
    messages = [{"role": "user", "content": "Find x."}]
    problem = dataclasses.replace(task.train[0], prompt=messages)
    asked = for_language_model(
        dataclasses.replace(task, train=(problem,), words=None), tmp_path
    ).train[0]
    assert asked.prompt.startswith("<|user|><|vision_start|><|image_pad|><|vision_end|>Find x.")


def test_policies_without_eyes_and_wrong_numbers_of_pictures_are_refused():
    task = geometry(6, 6)
    with pytest.raises(ValueError, match=r"shows pictures, and this policy sees none"):
        sight_of(task, None)
    more = dataclasses.replace(task.train[0], prompt="<image><image>x=")
    vision = tiny_vision(task.tokenizer.image_id)
    with pytest.raises(ValueError, match=r"its text shows 2 pictures \(<image>\), and it has 1"):
        tokenize([more], task.tokenizer, 12, sight=sight_of(task, vision))
    with pytest.raises(TypeError, match="images"):
        Problem("x", "1", "s", images=("a.png",))
