"""The selectors of docs/write_your_own_selector.md, as a reader would have them."""

import re
from pathlib import Path

import jax

PAGE = Path(__file__).parents[2] / "docs" / "write_your_own_selector.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def read() -> dict:
    """What the page's blocks define, run in their order."""
    names: dict = {"__name__": "own"}
    with jax.numpy_dtype_promotion("standard"):
        exec(compile("\n".join(BLOCKS), PAGE.name, "exec"), names)
    return names


NAMES = read()
