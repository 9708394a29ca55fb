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
from dpsjax.selectors import field, recipes

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


def test_paper_index_names_every_recipe_and_its_paper():
    index = (ROOT / "docs" / "selectors.md").read_text()
    for module in (recipes, field):
        for name, recipe in vars(module).items():
            if inspect.isfunction(recipe) and inspect.getmodule(recipe) is module:
                assert f"`{name}" in index, name
                rows = [line for line in index.splitlines() if f"`{name}" in line]
                for paper in re.findall(r"arXiv (\d{4}\.\d{5})", recipe.__doc__ or ""):
                    assert any(paper in line for line in rows), (name, paper)


def test_paper_index_names_what_exists():
    index = (ROOT / "docs" / "selectors.md").read_text()
    named = re.findall(r"^\| `(\w+)", index, re.MULTILINE)
    assert len(named) > 25
    assert all(hasattr(dpsjax.selectors, name) for name in named)


PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.name
)
def test_examples_of_pages(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        exec(compile("\n".join(blocks), page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_pages_resolve(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
