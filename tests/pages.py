"""The commands that README, docs and the other pages name, as words."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "peers" / "README.md",
    ROOT / "experiments" / "README.md",
]

_BLOCK = re.compile(r"```(?:bash|console|sh|yaml)\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]{3,300})`(?!`)")
# What may stand before a command: variables, a priority, a launcher's words, a folder of programs.
_COMMAND = re.compile(r"(?:^|[\s;'\"/])((?:dpsjax|python3?(?:\.\d+)?)(?:\s+[^\n;&|'\"]*)?$)")
_BEFORE = re.compile(r"^(?:[A-Z_]+=\S+\s+|nice\s+(?:-n\s+\d+\s+)?)*(?=(?:dpsjax|python3?)\s)")


class Command(NamedTuple):
    """A command as it stands on a page."""

    page: str
    words: tuple[str, ...]


def commands_of(text: str) -> list[tuple[str, ...]]:
    """Every command of a page's text, in order, without comments and what stands before it."""
    found = []
    for block in _BLOCK.findall(text):
        block = re.sub(r"\\\n|>-\n", " ", block)
        block = re.sub(r"\n +--", " --", block)
        for line in block.splitlines():
            for part in re.split(r"[;&|']+", re.sub(r"(^|\s)#.*", "", line)):
                if match := _COMMAND.search(part):
                    found.append(match[1])
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += [
        line.split("  #")[0] for line in re.findall(r"^    ((?:dpsjax|python3?) .*)", outside, re.M)
    ]
    for span in _INLINE.findall(outside):
        span = " ".join(span.split())
        if _BEFORE.match(span):
            found.append(_BEFORE.sub("", span))
    # Three dots stand for a task, and else for more of the same.
    found = [text.replace("dpsjax train ... ", "dpsjax train countdown ") for text in found]
    return [tuple(word for word in shlex.split(text) if word != "...") for text in found]


def all_commands() -> list[Command]:
    """Those of all pages."""
    return [
        Command(path.relative_to(ROOT).as_posix(), words)
        for path in PAGES
        for words in commands_of(path.read_text(encoding="utf-8"))
    ]
