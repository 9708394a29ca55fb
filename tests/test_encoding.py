"""Text files are UTF-8 whatever the locale: every call that opens one says so.

Ruff's rule (PLW1514) sees this only where it can tell that something is a path.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpsjax import cli
from tests.test_cli import TINY

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for room in ("dpsjax", "benchmarks", "experiments")
    for path in ROOT.glob(f"{room}/**/*.py")
]


def silent_calls(source):
    """Lines of the calls that open text and leave its encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = getattr(node.func, "attr" if method else "id", "")
        of = getattr(node.func.value, "id", "") if method else ""
        if name not in ("open", "fdopen", *(("read_text", "write_text") if method else ())):
            continue
        # a path's own open has the mode first, the others second
        given = node.args[not method or of == "os" :] if name != "read_text" else []
        given = [*given[:1], *(word.value for word in node.keywords if word.arg == "mode")]
        modes = [mode.value for mode in given if isinstance(mode, ast.Constant)]
        binary = name != "write_text" and any("b" in str(mode) for mode in modes)
        if not binary and (name != "open" or of not in ("os", "Image", "webbrowser")):
            yield node.lineno


def test_the_search_finds_what_it_must():
    text = "p.read_text()\nopen(p)\nopen(p, 'rb')\np.open('wb')\np.open('a')\nos.open(p, 1)\n"
    assert list(silent_calls(text + "p.write_text(t, encoding='utf-8')")) == [1, 2, 5]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_its_encoding(path):
    assert list(silent_calls(path.read_text(encoding="utf-8"))) == []


def test_a_run_with_a_name_in_any_letters_in_the_c_locale(tmp_path):
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    out = tmp_path / "läufe ü" / "日本"
    command = [sys.executable, "-m", "dpsjax.cli", *TINY, "--out", str(out)]
    for steps in ("1", "2"):  # the second run goes on from the first one's checkpoint
        done = subprocess.run(
            [*command, "--steps", steps], env=plain, cwd=tmp_path, capture_output=True, timeout=300
        )
        said = (done.stdout + done.stderr).decode("utf-8")
        assert done.returncode == 0 and "could not be written" not in said, said
    assert "step 1/" not in said, said
    records = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    assert [record["step"] for record in records] == [1, 2]


def test_words_that_are_not_utf8_are_refused(capsys):
    assert cli.main([*TINY, "--out", os.fsdecode(b"l\xe4ufe")]) == cli.BAD_INPUT
    assert "is not UTF-8" in capsys.readouterr().err
