import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

import dpsjax
from dpsjax import cli
from dpsjax.run.config import TrainConfig, default_config, from_dict, to_dict
from dpsjax.run.selector_settings import settings

TINY = shlex.split(
    "train countdown --init random --steps 2 --prompts 4 --model.width 32 --model.mlp-width 64 "
    "--model.layers 1 --model.heads 4 --model.head-dim 8 --task.problems 32 --task.held-out 8 "
    "--task.sizes 2 --task.weights 1 --task.response-tokens 8 --grpo.rollouts-per-prompt 4 "
    "--evaluation.problems 6 --evaluation.every 1 --mesh.data 1"
)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dpsjax {dpsjax.__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "-h"]])
def test_help_names_the_commands(words, capsys):
    assert cli.main(words) == 0
    assert "train countdown" in capsys.readouterr().out


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "countdown", "--selector", "dps", "--help"])
    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    for option in ("--selector", "--steps", "--seed", "--out", "--init", "--prompts"):
        assert option in shown
    assert "lambda. The paper: 0.7 on MATH" in shown
    assert ":func:" not in shown and "Attributes:" not in shown


def test_the_defaults_need_no_option():
    assert cli.parse_train([]).config == TrainConfig()
    assert cli.parse_train([], "operators").config == default_config("operators")


def test_each_task_has_options_of_its_own():
    config = cli.parse_train(["--task.values", "8", "--steps", "3"], "operators").config
    assert (config.task.values, config.steps) == (8, 3)
    assert config.folder().name == "operators-frontier-seed0"
    assert from_dict(json.loads(json.dumps(to_dict(config)))).task == config.task


@pytest.mark.parametrize(
    ("words", "selector"),
    [
        ("--selector uniform", settings("uniform")),
        ("--selector=dps", settings("dps")),
        ("--selector mopps --selector.target 0.4", settings("mopps", target=0.4)),
        ("--selector.decay 0.7 --selector dps", settings("dps", decay=0.7)),
        ("--selector dps --selector.candidates 8 --steps 3", settings("dps", candidates=8)),
    ],
)
def test_a_selector_and_its_options(words, selector):
    assert cli.parse_train(words.split()).config.selector == selector


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("play", "no command 'play'"),
        ("train chess", "no command 'train chess'"),
        ("train countdown --selector best", "selector='best' is not known: use one of uniform"),
        ("train countdown --prompts 30000", "prompts=30000 must not exceed"),
        ("train countdown --init nowhere.safetensors", "no weights at nowhere.safetensors"),
        ("train countdown --task.sizes 2", "weights must have one entry for each of sizes"),
        ("train countdown --mesh.tensor 9", "needs 9 devices"),
        ("train countdown --grpo.mini-batch 7", "mini_batch=7 must divide the 32 prompts"),
        (
            "train countdown --selector.decay 2",
            "decay must be finite and lie in",
        ),
        ("train countdown --evaluation.problems 1001", "evaluation.problems=1001 must not exceed"),
        ("train nowhere_at_all:Task", "the module 'nowhere_at_all' cannot be imported"),
        ("train json:loads", "is no class below dpsjax.tasks.base.TaskSettings"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(words, message, capsys):
    assert cli.main(words.split() + ["--out", "/nonexistent/run"] * ("countdown" in words)) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps many", "many"),
        ("--stepz 3", "--stepz"),
        ("--selector uniform --selector.decay 0.5", "--selector.decay"),
    ],
)
def test_options_that_do_not_parse_exit_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "countdown", *words.split()])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_gives_the_same_run(tmp_path):
    """Two processes, each the whole command; a secret of the environment is nowhere on disk.

    The second compiles nothing: it finds every program that the first one kept.
    """
    cache = tmp_path / "cache"
    environment = {
        **os.environ,
        "SECRET_TOKEN": "hunter2-hunter2",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # these programs are small
    }
    summaries, lines, kept = [], [], []
    for name in ("one", "two"):
        out = tmp_path / name
        done = subprocess.run(
            [sys.executable, "-m", "dpsjax.cli", *TINY, "--out", str(out)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("step 1/2  reward") and not done.stderr
        summaries.append(json.loads((out / "summary.json").read_text()))
        texts = (out / "metrics.jsonl").read_text().splitlines()
        lines.append([{**json.loads(text), "seconds": None} for text in texts])
        for path in out.rglob("*"):
            assert path.is_dir() or b"hunter2" not in path.read_bytes()
        kept.append({path.name for path in cache.iterdir() if path.name.endswith("-cache")})
    assert kept[0] == kept[1] and sum(name.startswith("jit_run-") for name in kept[0]) >= 3
    assert summaries[0]["params_digest"] == summaries[1]["params_digest"]
    assert summaries[0]["selector_digest"] == summaries[1]["selector_digest"]
    assert lines[0] == lines[1]


def assert_same_run(one, two):
    """Equal digests of the last state, and equal metrics but for the clock."""
    first, second = (json.loads((out / "summary.json").read_text()) for out in (one, two))
    for name in ("params_digest", "selector_digest"):
        assert first[name] == second[name]
    lines = [(out / "metrics.jsonl").read_text().splitlines() for out in (one, two)]
    texts = [[{**json.loads(text), "seconds": None} for text in of] for of in lines]
    assert texts[0] == texts[1] and len(texts[0]) == 2


def test_continuing_refusing_and_repeating_from_the_command_line(tmp_path, capsys, monkeypatch):
    """One process for all of it: the programs are compiled once."""
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-hunter2")
    out = tmp_path / "run"
    tiny = [*TINY, "--out", str(out)]
    assert cli.main(tiny) == 0
    assert cli.main(["train", "countdown", "--from", str(out / "config.json")]) == 0
    assert_same_run(out, tmp_path / "run-repeated")
    capsys.readouterr()
    assert cli.main(tiny) == 0
    assert f"{out} is finished: 2 steps are done" in capsys.readouterr().out.replace("\n", "")
    assert cli.main([*tiny, "--seed", "1"]) == 2
    assert "seed: 0 in the checkpoint, 1 now" in capsys.readouterr().err
    assert cli.main([*tiny, "--steps", "3", "--grpo.learning-rate", "1e-3"]) == 2
    assert "grpo.learning_rate" in capsys.readouterr().err
    changed = [*tiny, "--steps", "3", "--grpo.learning-rate", "1e-3", "--allow", "grpo"]
    assert cli.main(changed) == 0
    shown = capsys.readouterr().out
    assert "continuing after step 2" in shown and "step 3/3" in shown
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3
    assert cli.main([*tiny, "--restart"]) == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert len((out / "earlier-1" / "metrics.jsonl").read_text().splitlines()) == 3
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no config.json of a run"),
        ("[1]", "is no config.json of a run"),
        ("not json", "is no config.json of a run"),
        ('{"config": {"stepz": 3}}', "there is no setting stepz"),
        ('{"config": {"grpo": {"epochs": 0}}}', "epochs=0 must be at least 1"),
        ('{"config": {"selector": {"name": "best"}}}', "selector='best' is not known"),
        ('{"config": {"steps": "x"}}', "steps='x' must be like 100"),
        ('{"config": {"seed": true}}', "seed=True must be like 0"),
        ('{"config": {"task": 3}}', "task=3 must be an object of settings"),
        ('{"config": {"task": {"problems": [1]}}}', "task.problems=[1] must be like 500"),
    ],
)
def test_a_file_that_is_no_record_of_a_run(tmp_path, capsys, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    assert cli.main(["train", "countdown", "--from", str(path)]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_settings_survive_json():
    config = cli.parse_train(
        ["--selector", "uniform", "--task.sizes", "2", "3", "--task.weights", "1", "1"]
    ).config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == dataclasses.replace(
        config, out=config.folder()
    )


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path):
    """The first SIGTERM waits for the step; the second does not."""
    words = [sys.executable, "-m", "dpsjax.cli", *TINY, "--steps", "100000", "--out", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("step 1/")
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 0 and "stopped by SIGTERM, everything is saved" in rest
    done = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (tmp_path / "checkpoints" / str(done)).is_dir()

    code = (
        "import os, signal\n"
        "from dpsjax.run.signals import termination\n"
        "with termination() as asked:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert asked\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode == 128 + signal.SIGTERM and "still here" not in second.stdout
