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
    folders = (ROOT / "docs", ROOT)  # docs/site/outside.py brings pages that stand elsewhere
    lost = {name for name in listed if not any((folder / name).is_file() for folder in folders)}
    assert lost == {"overview.md"}  # the README


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
        assert ":func:" not in found
    report = (tmp_path / "experiments/REPORT/index.html").read_text(encoding="utf-8")
    assert 'href="../../operators/"' in report
