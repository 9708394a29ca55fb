"""The documentation as a site: it builds without a warning, and holds every page and every API."""

import os
import re
import subprocess
import sys

import pytest

from tests.pages import ROOT


def test_the_navigation_names_pages_once():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert len(listed) > 30 and len(set(listed)) == len(listed)
    assert [name for name in listed if not (ROOT / "docs" / name).is_file()] == []


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocstrings", reason="pip install -e '.[docs]'")
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page, name in (("curriculum", "dpsjax.Curriculum.ask_ticket"), ("adapters", "attach")):
        found = (tmp_path / "api" / page / "index.html").read_text(encoding="utf-8")
        assert re.search(rf'<h\d id="[^"]*{name}"', found), name
