"""Every command that a page names is one of these, and works: as it stands, on tiny sizes.

A page that names a command which is not in the table fails; give it a row with options that make it
small: they take the place of the page's.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax import cli
from tests.pages import ROOT, Command, all_commands, commands_of
from tests.run.folders import write_folder
from tests.run.test_launch_page import commands as launched
from tests.test_cli import TINY

FIELD = "--steps 3 --pool 24 --batch 4 --rollouts 4 --seeds 2"

# By how a command begins, the longest that fits: what makes it small.
SMALL: dict[str, str] = {
    "dpsjax train": "",  # the name alone
    "dpsjax train countdown": " ".join(TINY[2:]),
    "dpsjax train countdown --log": " ".join(TINY[2:]),
    "dpsjax train countdown --model": "--plan v5e:2x4 --plan.estimate",
    "dpsjax train operators": (
        "--init random --steps 2 --prompts 4 --model.width 32 --model.mlp-width 64 "
        "--model.layers 1 --model.heads 4 --model.head-dim 8 --task.problems 32 --task.held-out 8 "
        "--grpo.rollouts-per-prompt 4 --evaluation.problems 6 --evaluation.every 1 --mesh.data 1"
    ),
    "dpsjax compare": f"{FIELD} --selectors dps mopps",
    "dpsjax compare --trace": "--steps 2 --batch 2 --rollouts 2 --seeds 2 --selectors dps mopps",
    "dpsjax compare --policy": (
        "--steps 2 --pool 8 --batch 4 --rollouts 2 --seeds 1 --selectors dps"
    ),
    "dpsjax doctor": "",
    "dpsjax eval": "--samples 2 --problems 4 --step 2 --mesh.data 1",
    "dpsjax log": "",
    "dpsjax plan": "--model qwen2.5-0.5b --topology v5e-16 --estimate",
    "dpsjax view": "",
    "python -m dpsjax.selectors.papers": "",
    "python benchmarks/compare.py": "--seeds 1 --steps 3 --pool 64 --batch 8 --selectors dps mopps",
    "python benchmarks/filter.py": "--sizes 1e3 --batch 16 --out out",
    "python benchmarks/peers/run.py": "--rounds 1 --steps 1 --sides dpsjax --out peers.json",
    "python benchmarks/plan_table.py": "--compile --out figures.json --docs docs/plan.md",
    "python benchmarks/precision.py": "--prompts 64 --batch 8 --steps 3 --seeds 2 --out out",
    "python benchmarks/recipes.py": "--prompts 1e3 --batch 16 --rounds 1 --out out",
    "python benchmarks/resume.py": "--kills 1 --steps 4 --out out",
    "python benchmarks/sharded.py": "--prompts 1024 --batch 16 --rounds 2 --out out",
    "python benchmarks/soak.py": "--steps 40 --seconds 60 --every 5 --out out",
    "python benchmarks/verifier.py": "--data DIR --count 4 --out out",  # no file: forms alone
    "python benchmarks/tpu_filter.py": "--prompts 1e4 --out out",
    "python benchmarks/tpu_kernel.py": "--prompts 1e4 --out out",
    "python experiments/compare_students.py": (
        "--students slow forgetting --selectors dps mopps --seeds 2 --steps 3 --pool 60 --batch 8 "
        "--out students"
    ),
    "python experiments/countdown_seeds.py": "--smoke --out seeds",
    "dpsjax train geometry": (
        "--init random --steps 2 --prompts 4 --model.width 32 --model.mlp-width 64 "
        "--model.layers 1 --model.heads 4 --model.head-dim 8 --task.problems 12 --task.held-out 6 "
        "--grpo.rollouts-per-prompt 4 --evaluation.problems 6 --evaluation.every 1 --mesh.data 1"
    ),
    "python experiments/geometry_blind.py": "--problems 6",
    "python experiments/make_geometry_base.py": (
        "--steps 4 --reading 2 --batch 8 --every 4 --figures 12 --out base.safetensors"
    ),
    "python experiments/make_operators_base.py": (
        "--steps 4 --batch 8 --every 4 --out base.safetensors"
    ),
    "python experiments/operators_figures.py": "--results figures",
    "python experiments/operators_gradient.py": "--smoke --out gradient.json",
    "python experiments/operators_predict.py": "--smoke --out predict.json",
    "python experiments/operators_table.py": "--smoke --out table.jsonl",
    "python experiments/operators_why.py": "--smoke --out why.jsonl",
}
# What they need that is no part of the development environment.
NEEDS = {
    "dpsjax log": "tensorboardX",
    "dpsjax train countdown --log": "tensorboardX",
    "python benchmarks/tpu_filter.py": "libtpu",
    "python benchmarks/tpu_kernel.py": "libtpu",
}
BUSY = "libtpu multi-process lockfile"  # another process compiles for a TPU
# Commands on files of the reader's own, and where such files are made and the command is run.
ELSEWHERE = {
    "dpsjax train geometry3k": "tests/tasks/test_geometry3k.py",
    "dpsjax eval MODEL": "tests/run/test_eval.py",
    "dpsjax train gym": "tests/tasks/test_gym.py",
    "dpsjax train jsonl": "tests/run/test_own_data.py",
    "dpsjax train math": "tests/run/test_own_data.py",
    # Its block: tests/test_docs.py; such a class is found: tests/tasks/test_registry.py.
    "dpsjax train my_tasks:Backwards": "tests/test_docs.py",
}
PARSED = {"docs/launch.md"}  # hosts of pods, and models of gigabytes: tests/run/test_launch_page.py

RUN = "runs/whole"  # a finished run, in the folder where commands are run


def row_of(words) -> str | None:
    """The row of a command: the longest beginning of it that has one."""
    for length in range(len(words), 0, -1):
        if (name := " ".join(words[:length])) in SMALL:
            return name
    return None


def small(words) -> list[str]:
    """The command made small; files of a run are those of the one in ``place``."""
    # what is read is the finished run; what is trained, or --out, is not
    mine = "^DIR(?=/)" if words[1] == "train" else "^(DIR(?=/)|runs/mine(?=/|$))"
    named = [re.sub(mine, RUN, word) for word in words]
    shrunk = SMALL[row_of(words) or ""]
    ours = {word for word in shrunk.split() if word.startswith("--")}
    kept, drop = [], False
    for word in named:
        if word.startswith("--"):
            drop = word in ours
        if not drop:
            kept.append(word)
    return [*kept, *shrunk.split()]


def distinct() -> list[tuple[str, ...]]:
    """Commands that are run: each once, though many pages may name it and its sizes differ."""
    found = {}
    for command in all_commands():
        here = " ".join(command.words[:3]) not in ELSEWHERE and command.words != ("dpsjax", "train")
        if command.page not in PARSED and here:
            found.setdefault(tuple(small(command.words)), command.words)
    return list(found.values())


def test_commands_are_found_in_blocks_spans_and_after_variables():
    text = (
        "A `dpsjax plan` and\n`A=b nice -n 10 python\nx.py --y 1`, no `dpsjax/plan/`.\n\n"
        "```bash\nnice python x.py \\\n  --z 3   # why\nfor i in 0; do dpsjax compare & done\n"
        "srun --k=1 dpsjax train countdown\n```\n    python z.py   # here\n"
    )
    assert [" ".join(words) for words in commands_of(text)] == [
        "python x.py --z 3",
        "dpsjax compare",
        "dpsjax train countdown",
        "python z.py",
        "dpsjax plan",
        "python x.py --y 1",
    ]


@pytest.mark.parametrize("command", dict.fromkeys(all_commands()), ids=lambda c: " ".join(c.words))
def test_every_command_of_a_page_is_known(command: Command):
    """It has a row; its script is there and has the options."""
    assert row_of(command.words), f"{command.page}: make {' '.join(command.words)!r} small here"
    if command.page in PARSED:
        expected = [("dpsjax", "train", "countdown", *words) for words in launched()]
        assert tuple(word.replace("$i", "0") for word in command.words) in expected
    elif command.words[:3] == ("dpsjax", "train", "countdown"):
        words = [word for word in command.words[3:] if not re.match("DIR|--from|--model", word)]
        assert cli.parse_train(words).config
    elif command.words[0].startswith("python") and command.words[1] != "-m":
        source = (ROOT / command.words[1]).read_text(encoding="utf-8")
        for option in [word[2:] for word in command.words if word.startswith("--")]:
            field = option.replace("-", "_")
            assert re.search(rf'(?m)^    {field}: |"--{option}"', source), option


def test_no_row_is_left_over():
    named = {row_of(command.words) for command in all_commands()}
    assert named == set(SMALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished run, and a copy of the pages that commands write to."""
    folder = tmp_path_factory.mktemp("commands")
    assert cli.main([*TINY, "--prompts", "32", "--out", str(folder / RUN)]) == 0
    write_folder(folder / "DIR")  # of a language model
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "benchmarks" / "results" / "plan.json", folder / "figures.json")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", distinct(), ids=" ".join)
def test_every_command_of_a_page_works(words, place, monkeypatch, capsys):
    need = NEEDS.get(row_of(words) or "")
    if need and importlib.util.find_spec(need) is None:
        pytest.skip(f"{need} is not installed")
    monkeypatch.chdir(place)
    program, *rest = small(words)
    if program == "dpsjax":  # in this process, where programs of equal shapes are compiled once
        assert cli.main(rest) == 0, capsys.readouterr().err
        return
    if rest[0] != "-m":
        rest[0] = str(ROOT / rest[0])
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    if any("v5p" in word for word in rest):  # as the page says, before the command
        environment["TPU_ACCELERATOR_TYPE"] = "v5p-8"
    done = subprocess.run(
        [sys.executable, *rest],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if BUSY in done.stderr:
        pytest.skip("the TPU compiler is busy")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    if rest[0] == "-m":  # the page is already what the command makes of it
        page = Path(rest[-1])
        assert page.read_bytes() == (ROOT / page).read_bytes()
