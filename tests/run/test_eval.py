"""``dpsjax eval``: many responses to each problem; its measures: tests/report/test_at_k.py."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from flax import nnx

from dpsjax import cli
from dpsjax.policy import Policy, PolicyConfig, save_weights
from dpsjax.report.response_file import read_responses
from dpsjax.report.view.data import Limits, read_folder
from dpsjax.run.evaluation.answers import measures
from dpsjax.run.evaluation.command import benchmark_file
from dpsjax.tasks.countdown import CountdownConfig
from tests.run.folders import write_folder
from tests.test_cli import TINY

TASK = shlex.split(
    "--task countdown --task.problems 32 --task.held-out 8 --task.sizes 2 --task.weights 1 "
    "--task.response-tokens 8 --mesh.data 1 --rows 3"
)
DATA = Path(__file__).parents[3] / "shared" / "data" / "math"


def evaluate(*words):
    return cli.main(["eval", *map(str, words)])


def result(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    size = {"width": 32, "mlp_width": 64, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 8}
    config = PolicyConfig(vocab_size=CountdownConfig().build().tokenizer.vocab_size, **size)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_weights(path, config, nnx.split(Policy(config, rngs=nnx.Rngs(0)))[1])
    return path


def test_one_that_was_stopped_goes_on_to_the_same(weights, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert evaluate(weights, *TASK, "--samples", 3, "--out", whole) == 0
    shutil.copytree(whole, cut)
    shown = capsys.readouterr().out
    assert "8 problems x 3 responses" in shown and "pass@1 %" in shown and "ETA" in shown
    text = (whole / "responses.jsonl").read_bytes()
    lines = text.split(b"\n")  # a kill in the second of three turns, in the middle of a line
    (cut / "responses.jsonl").write_bytes(b"\n".join([*lines[:14], lines[14][:20]]))
    (cut / "evaluation.json").unlink()
    assert evaluate(weights, *TASK, "--samples", 3, "--out", cut) == 0
    assert "3 of 8 problems are answered already" in capsys.readouterr().out
    assert (cut / "responses.jsonl").read_bytes() == text
    assert result(cut)["all"] == result(whole)["all"]
    assert evaluate(weights, *TASK, "--samples", 2, "--out", cut) == 2
    assert "another samples" in " ".join(capsys.readouterr().err.split())
    rows = read_responses(cut / "responses.jsonl")
    assert [row["prompt"] for row in rows] == [n for n in range(8) for _ in range(3)]
    page = read_folder(cut, Limits())
    assert page["evaluation"]["samples"] == 3 and len(page["held"]["text"]) == 8


def line(source, correct, answer):
    values = {"source": source, "correct": correct, "answer": answer}
    return values | {"truncated": False, "tokens": 4}


def test_measures_of_responses_by_source():
    lines = [line("a", True, "1"), line("a", False, "2")]
    lines += [line("b", None, None), line("b", False, "")]
    found = measures(lines, 2, (1, 2))
    value = {name: of["value"] for name, of in found["all"]["measures"].items()}
    assert value == {"pass@1": 0.25, "pass@2": 0.5, "maj@2": 0.25}
    assert found["sources"]["a"]["measures"]["maj@2"]["value"] == 0.5
    assert found["sources"]["b"]["measures"]["pass@2"]["value"] == 0
    assert found["unscored"] == 1 and found["all"]["problems"] == 2
    for of in found["all"]["measures"].values():
        assert 0 <= of["low"] <= of["value"] <= of["high"] <= 1


def test_benchmarks_are_found_by_name(tmp_path):
    for name in ("AIME_2024.jsonl", "math-500.parquet", "math_train.json", "aime.txt"):
        (tmp_path / name).touch()
    assert benchmark_file("aime", tmp_path).name == "AIME_2024.jsonl"
    assert benchmark_file("math-500", tmp_path).name == "math-500.parquet"
    with pytest.raises(FileNotFoundError, match="minerva"):
        benchmark_file("minerva", tmp_path)
    (tmp_path / "aime25.json").touch()
    with pytest.raises(ValueError, match=r"AIME_2024\.jsonl, aime25\.json fit"):
        benchmark_file("aime", tmp_path)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "DIR|MODEL stands first"),
        (["nowhere"], "'nowhere'"),
        (["base"], "--task NAME"),
        (["base", "--task", "countdown", "--step", "3"], "step=3 is for a run's folder"),
        (["base", "--task", "countdown", "--benchmarks", "aime"], "leave out --task"),
        (["base", "--task", "nothing"], "task='nothing'"),
    ],
)
def test_mistakes_are_named(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate(*words) == 2
    assert named in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_every_step_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--checkpoint.every", "1", "--grpo.learning-rate", "0.01", "--out", str(run)]
    trained = [word.replace("random", "base") for word in TINY]  # the shipped base learns at once
    assert cli.main([*trained, *words]) == 0
    few = ("--mesh.data", 1, "--samples", 2)

    def responses(name, *step):
        assert evaluate(run, *few, *step, "--out", tmp_path / name) == 0
        return read_responses(tmp_path / name / "responses.jsonl")

    none, end = responses("none", "--step", 0), responses("end")
    one = ("--mesh.data", 1, "--step", 0, "--samples", 1, "--out", tmp_path / "none")
    assert evaluate(run, *one) == 2 and evaluate(run, *one, "--restart") == 0
    assert len(read_responses(tmp_path / "none" / "responses.jsonl")) == 8
    summary = (run / "summary.json").rename(tmp_path / "summary.json")  # a run that goes on
    assert responses("checkpoint", "--step", 2) == end == responses("newest")
    summary.rename(run / "summary.json")
    assert [r["response"] for r in none] != [r["response"] for r in end]
    assert {row["step"] for row in none} == {0} and {row["step"] for row in end} == {2}
    assert evaluate(run, *few, "--step", 7) == 2
    assert "step=7 is not to be had (no checkpoint)" in " ".join(capsys.readouterr().err.split())
    assert evaluate(run, *few) == 0  # below the run's folder, where its page finds it
    assert [e["name"] for e in read_folder(run, Limits())["evaluations"]] == ["step-2-countdown-x2"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no published problems at {DATA}")
def test_published_benchmarks_ask_a_language_model(tmp_path):
    pytest.importorskip("math_verify")
    write_folder(tmp_path / "model")
    words = ("--benchmarks", "aime", "amc", "--data", DATA, "--task.response-tokens", 8)
    out = tmp_path / "out"
    few = ("--problems", 6, "--samples", 2, "--mesh.data", 1, "--out", out)
    assert evaluate(tmp_path / "model", *words, *few) == 0
    assert set(result(out)["sources"]) <= {"test_aime", "test_amc"}
    assert result(out)["all"]["problems"] == 6
