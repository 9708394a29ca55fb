"""Hook of mkdocs: pages that stand outside ``docs/`` are part of the site; links to them hold."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# Where a page of the repository stands in the site.
PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "experiments/README.md": "experiments/README.md",
    "experiments/REPORT.md": "experiments/REPORT.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+://|#)([^)#\s]*)")


def on_files(files, config):
    """Adds them, and the pictures of the experiments."""
    pictures = (ROOT / "experiments/results").glob("*.png")
    places = {p.relative_to(ROOT).as_posix(): p.relative_to(ROOT).as_posix() for p in pictures}
    for source, place in {**PAGES, **places}.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links between files of the repository become links between pages."""
    here = next((s for s, p in PAGES.items() if p == page.file.src_uri), None)
    folder = (ROOT / (here or f"docs/{page.file.src_uri}")).parent
    depth = page.file.src_uri.count("/")

    def moved(match: re.Match) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(ROOT) or not match[1]:
            return match[1]
        if target.is_dir():
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        return "../" * depth + PAGES.get(name, name.removeprefix("docs/"))

    return LINK.sub(moved, markdown)
