"""Examples run, public names are documented, links inside the repository resolve."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import jax
import pytest

import dpsjax
from dpsjax.selectors import papers

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def modules():
    names = [info.name for info in pkgutil.walk_packages(dpsjax.__path__, "dpsjax.")]
    return ["dpsjax", *(name for name in names if not name.endswith("__main__"))]


def test_readme_examples():
    """All blocks in order, in one namespace, as a reader would type them."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)


def test_readme_paths_exist():
    for path in re.findall(r"`((?:dpsjax|tests|benchmarks|experiments)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("name", modules())
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for attribute, value in vars(module).items():
        mine = inspect.getmodule(value) is module
        if attribute.startswith("_") or not mine or not callable(value):
            continue
        assert inspect.getdoc(value), f"{name}.{attribute}"


def test_paper_index_is_that_of_the_catalogue():
    index = (ROOT / "docs" / "selectors.md").read_text(encoding="utf-8")
    assert index.split(papers.MARK)[1].strip() == papers.page().strip()


def test_paper_index_has_every_recipe_its_paper_and_all_keywords():
    index = papers.page()
    for entry in dpsjax.selectors.catalogue().values():
        section = index.split(f"### `{entry.recipe.__name__}`")[1].split("\n### ")[0]
        assert entry.paper in section, entry.name
        for keyword in entry.defaults():
            assert f"| `{keyword}` |" in section, f"{entry.name}: {keyword} has no line in Args"


PAGES = sorted((ROOT / "docs").glob("*.md"))
# Executed by tests that look at what they leave behind.
TESTED = {"callbacks.md", "own_loop.md", "loop_numpy.md", "loop_pytorch.md", "loop_jax.md"}


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if "```python" in p.read_text() and p.name not in TESTED],
    ids=lambda p: p.name,
)
def test_examples_of_pages(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        exec(compile("\n".join(blocks), page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_pages_resolve(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
