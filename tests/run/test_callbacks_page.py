"""docs/callbacks.md, as it stands but for the size of its run."""

import re

import pytest

from tests.pages import ROOT
from tests.run import tiny


@pytest.mark.slow
def test_the_page_runs(tmp_path, capsys):
    text = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'default_config("countdown")' in block
    block = block.replace('default_config("countdown")', "small")
    namespace = {"small": tiny.config(out=tmp_path / "run")}
    exec(compile(block, "callbacks.md", "exec"), namespace)
    assert namespace["summary"]["steps"] == 2
    # An untrained policy solves nothing: the callback says so after each step.
    assert re.findall(r"step (\d): 0% of groups mixed", capsys.readouterr().out) == ["1", "2"]
