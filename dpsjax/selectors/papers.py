"""The page "selectors by paper", made from the catalogue: signatures, docstrings and papers.

python -m dpsjax.selectors.papers docs/selectors.md      # renews what stands below the mark
"""

import inspect
import re
import sys
from pathlib import Path

from dpsjax.selectors.catalogue import catalogue
from dpsjax.selectors.entry import Entry, without_roles

MARK = "<!-- Below: made by `python -m dpsjax.selectors.papers docs/selectors.md` -->"


def page() -> str:
    """All entries, as Markdown.

    >>> "### `dps`" in page()
    True
    """
    return "\n".join(_section(entry) for entry in catalogue().values())


def renew(path: Path) -> None:
    """Write the page below the mark in a file.

    Raises:
        ValueError: the file has no mark.
    """
    text = path.read_text(encoding="utf-8")
    if MARK not in text:
        raise ValueError(f"{path} has no line {MARK!r}: put it where the entries shall begin")
    kept = text.split(MARK)[0]
    path.write_text(f"{kept}{MARK}\n\n{page()}", encoding="utf-8")


def _section(entry: Entry) -> str:
    doc = inspect.getdoc(entry.recipe) or ""
    body, _, rest = doc.partition("\n\nArgs:\n")
    lines = [f"### `{entry.recipe.__name__}`", "", without_roles(body), ""]
    lines += [_facts(entry), ""]
    helps = _arguments(rest)
    if helps:
        lines += ["| keyword | default | |", "|---|---|---|"]
        defaults = entry.defaults()
        lines += [f"| `{name}` | `{defaults[name]!r}` | {text} |" for name, text in helps.items()]
        lines.append("")
    return "\n".join(lines)


def _facts(entry: Entry) -> str:
    """Where it is, what it is called on the command line, and what it needs."""
    file = (inspect.getmodule(entry.recipe) or sys).__name__.replace(".", "/") + ".py"
    facts = [f"`--selector {entry.name}`", f"in `{file}`"]
    if re.fullmatch(r"\d{4}\.\d{5}", entry.paper):
        facts.insert(0, f"[arXiv {entry.paper}](https://arxiv.org/abs/{entry.paper})")
    elif entry.paper:
        facts.insert(0, entry.paper)
    if entry.needs:
        facts.append("needs of every prompt: " + ", ".join(entry.needs))
    if entry.variants:
        named = (
            f"`{name}` ({', '.join(f'{key}={value!r}' for key, value in keywords.items())})"
            for name, keywords in entry.variants.items()
        )
        facts.append("in `dpsjax compare` also " + ", ".join(named))
    return "; ".join(facts) + "."


def _arguments(rest: str) -> dict[str, str]:
    """The lines of a Google docstring's Args section, by name."""
    section = rest.split("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, re.MULTILINE)
    return {name: without_roles(" ".join(text.split())).replace("|", "\\|") for name, text in found}


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
