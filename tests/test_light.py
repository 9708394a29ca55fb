"""A plain installation has JAX, NumPy and jaxtyping alone, and says what it lacks."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from dpsjax import extras

ROOT = Path(__file__).parent.parent

# No installed package can be imported but dpsjax and what its dependencies need.
BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
"""


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plain(name):
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names):
    """Top-level modules of distributions and of all that they need, without extras."""
    left, seen, modules = list(names), set(), set()
    provides = metadata.packages_distributions()
    while left:
        name = plain(re.match(r"[\w.-]+", left.pop())[0])
        if name in seen:
            continue
        seen.add(name)
        left += [r for r in metadata.requires(name) or [] if "extra ==" not in r]
        modules |= {m for m, of in provides.items() if name in map(plain, of)}
    return modules


def run(code):
    others = {*metadata.packages_distributions(), *extras.TRAIN} - {"dpsjax"}
    blocked = sorted(others - needed(project()["dependencies"]))
    program = BLOCKED.format(blocked=blocked) + code
    words = [sys.executable, "-c", program]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_three_dependencies():
    names = {re.match(r"[\w-]+", line)[0] for line in project()["dependencies"]}
    assert names == {"jax", "jaxtyping", "numpy"}


def test_selectors_and_the_curriculum_need_no_more():
    done = run(
        "import dpsjax\n"
        "assert len(dpsjax.selectors.catalogue()) > 20\n"
        "c = dpsjax.Curriculum(dpsjax.selectors.dps(), 8, 2)\n"
        "c.tell(c.ask(), [[0, 1], [1, None]])\n"
        "c.ask(); print(c.metrics()['effective_ratio'])\n"
        "for name in ('flax', 'optax', 'tyro', 'rich', 'chex'):\n"
        "    assert sys.modules[name] is None, name\n"
    )
    assert done.stdout.strip() == "0.5", done.stderr


def test_what_needs_more_says_what_to_install():
    done = run(
        "import os, dpsjax.__main__ as command\n"
        "for name in ('policy', 'grpo', 'loop', 'report', 'run', 'lab', 'plan'):\n"
        "    try:\n"
        "        __import__(f'dpsjax.{name}')\n"
        "        print(name, 'imports')\n"
        "    except ImportError as error:\n"
        "        assert \"pip install 'dpsjax[train]'\" in str(error), error\n"
        "sys.argv = ['dpsjax', 'train', 'countdown']\n"
        "sys.exit(command.main())\n"
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "the command line needs" in done.stderr
    assert "pip install 'dpsjax[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extra_is_what_the_check_looks_for():
    names = {re.match(r"[\w-]+", line)[0] for line in project()["optional-dependencies"]["train"]}
    assert {name.replace("orbax-checkpoint", "orbax") for name in names} == set(extras.TRAIN)


@pytest.mark.parametrize("extra", ["hf", "lora", "plan", "test", "dev"])
def test_extras_that_train_bring_it(extra):
    every = project()["optional-dependencies"]
    listed, left = set(), [extra]
    while left:
        for line in every[left.pop()]:
            inner = re.match(r"dpsjax\[(.*)\]", line)
            new = set(inner[1].split(",")) - listed if inner else set()
            listed |= new
            left += new
    assert "train" in listed
