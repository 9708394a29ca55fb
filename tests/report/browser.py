"""A page in a real browser, where there is one: what its script made of it."""

import json
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from dpsjax.report.view.page import page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# The page's own script has run by then, and what it put off.
_ASK = """
;setTimeout(() => {{
  let found;
  try {{ found = {{ value: (() => {{ {body} }})() }}; }}
  catch (error) {{ found = {{ error: String(error) }}; }}
  document.title = "asked";
  const text = document.createTextNode("<<" + JSON.stringify(found) + ">>");
  document.documentElement.replaceChildren(text);
}}, 200);
"""


def program() -> str:
    """A Chromium; the test is skipped where there is none."""
    for name in (os.environ.get("CHROME", ""), *_NAMES):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no Chromium or Chrome: apt-get install chromium, or name one in CHROME")


def ask(runs, body: str, folder: Path, address: str = ""):
    """What JavaScript, the body of a function, returns on the page about some runs."""
    browser, path = program(), folder / "asked.html"
    path.write_text(page(runs, datetime(2026, 1, 1), _ASK.format(body=body)), encoding="utf-8")
    words = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"),
        f"{path.as_uri()}#{address}",
    ]
    done = subprocess.run(
        [browser, *words], capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    text = done.stdout.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert "<<" in text, done.stdout[-1500:] + done.stderr[-1500:]
    found = json.loads(text[text.index("<<") + 2 : text.rindex(">>")])
    assert "error" not in found, found
    return found["value"]
