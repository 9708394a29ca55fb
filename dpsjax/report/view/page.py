"""The page itself: one HTML file with its style, its script and its data inside.

The charts are drawn as SVG by a script of a few kilobytes: a plotting library's bundle would be
megabytes in each page, for lines and bands. All texts reach the page as JSON and are set as text
only. A content security policy names the digests of the page's own style and script, so nothing
else runs, and nothing is fetched, whatever a response holds.
"""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata, resources
from string import Template
from typing import Any

from dpsjax.report.prompt_table import STUCK_VISITS
from dpsjax.report.view.data import to_json

SCRIPTS = ("charts.js", "table.js", "prompts.js", "page.js")


def page(runs: Sequence[Mapping[str, Any]], made: datetime, script: str = "") -> str:
    """The page about some runs.

    Args:
        runs: of :func:`dpsjax.report.view.data.read_folder`, side by side.
        made: written on it.
        script: run after the page's own; tests use the page with it.

    Returns:
        HTML.
    """
    data = {
        "made": f"{made:%Y-%m-%d %H:%M}",
        "runs": [{**run, "stuck": STUCK_VISITS} for run in runs],
    }
    style, own = _asset("page.css"), "\n".join(map(_asset, SCRIPTS)) + script
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, own),
        version=html.escape(metadata.version("dpsjax")),
        title=html.escape(" · ".join(run["name"] for run in runs)),
        style=style,
        data=to_json(data),
        script=own,
    )


def _asset(name: str) -> str:
    return (resources.files("dpsjax.report.view") / "assets" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    found = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{found}'"
