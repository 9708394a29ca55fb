"""``report.md`` of a run: which prompts are hardest, which are stuck, and which were lost again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpsjax.report.prompt_table import (
    STUCK_VISITS,
    PromptTable,
    Visit,
    hardest,
    regressed,
    stuck,
)
from dpsjax.tasks.base import Problem

# Prompts of each kind that are named; enough to see a pattern.
NAMED = 10


def named_prompts(table: PromptTable) -> dict[str, list[int]]:
    """The prompts that the report names, the worst first.

    Args:
        table: of the run.

    Returns:
        ``hardest``, ``stuck`` and ``regressed``, each with up to :data:`NAMED` ids.
    """
    kinds = {"hardest": hardest(table), "stuck": stuck(table), "regressed": regressed(table)}
    return {name: rows[:NAMED] for name, rows in kinds.items()}


def write_report(
    path: Path,
    title: str,
    summary: dict[str, Any],
    problems: Sequence[Problem],
    table: PromptTable,
    visits: Sequence[Sequence[Visit]],
    picture: str,
) -> None:
    """Write the report of a run.

    Args:
        path: DIR/report.md.
        title: of the run.
        summary: of :func:`dpsjax.run.outputs.summarize`.
        problems: the pool.
        table: of the run.
        visits: of :func:`dpsjax.report.prompt_table.histories`.
        picture: path of the picture, from the folder of the report.
    """
    named = named_prompts(table)
    lines = [
        f"# {title}",
        "",
        _overview(summary, table),
        "",
        f"![visits and pass rates of the prompts named below]({picture})",
        "",
    ]
    explained = {
        "hardest": (len(hardest(table)), "The lowest share of right rollouts over all visits"),
        "stuck": (
            len(stuck(table)),
            f"Visited at least {STUCK_VISITS} times, and never one right answer",
        ),
        "regressed": (
            len(regressed(table)),
            "Solved at least partly before, all wrong at the last visit",
        ),
    }
    for name, (total, meaning) in explained.items():
        lines += _section(name, total, meaning, named[name], problems, table, visits)
    path.write_text("\n".join(lines), encoding="utf-8")


def _overview(summary: dict[str, Any], table: PromptTable) -> str:
    pool = len(table.prompt)
    seen = [rate for rate in table.last_rate if rate is not None]
    wrong, right = seen.count(0.0), seen.count(1.0)
    return (
        f"Held-out accuracy {summary['accuracy_before']:.3f} before, "
        f"{summary['accuracy_after']:.3f} after {summary['steps']} steps and "
        f"{summary['rollouts']:,} rollouts; of the likeliest responses "
        f"{summary['greedy_before']:.3f} and {summary['greedy_after']:.3f}. "
        f"{_learned(summary)} Of {pool:,} prompts {pool - len(seen):,} were never "
        f"visited; at their last visit {wrong:,} were all wrong, {len(seen) - wrong - right:,} "
        f"mixed and {right:,} all right. "
        f"{_truncated(summary)}"
    )


def _truncated(summary: dict[str, Any]) -> str:
    """How many responses have no end."""
    share = summary["truncated"] / max(summary["rollouts"], 1)
    return f"{summary['truncated']:,} responses ({share:.1%}) had no end within their limit."


def _learned(summary: dict[str, Any]) -> str:
    """How much of the gain no temperature would have given."""
    found = summary["accuracy_before_by_temperature"]
    best = max(found, key=found.get)
    gain = summary["accuracy_after"] - found[best]
    verdict = "which is learned" if gain > 0 else "so a lower temperature would have done as well"
    return (
        f"The policy before training reaches {found[best]:.3f} at its best temperature, {best} "
        f"(tried: {', '.join(found)}); the run ends {abs(gain):.3f} "
        f"{'above' if gain > 0 else 'below'} that, {verdict}."
    )


def _section(
    name: str,
    total: int,
    meaning: str,
    rows: Sequence[int],
    problems: Sequence[Problem],
    table: PromptTable,
    visits: Sequence[Sequence[Visit]],
) -> list[str]:
    if not rows:
        return [f"## {name.capitalize()}", "", f"{meaning}: none.", ""]
    which = "all" if total == len(rows) else f"{len(rows)} of {total:,}"
    lines = [
        f"## {name.capitalize()}",
        "",
        f"{meaning}; {which}.",
        "",
        "| prompt | source | visits | right | last visits | text |",
        "|---:|---|---:|---:|---|---|",
    ]
    for row in rows:
        last = ", ".join(f"{v.passes}/{v.trials}" for v in visits[row][-5:])
        lines.append(
            f"| {row} | {_cell(table.source[row])} | {table.visits[row]} | "
            f"{table.passes[row]}/{table.trials[row]} | {last} (step {table.last_step[row]}) | "
            f"{_cell(problems[row].text())} |"
        )
    return [*lines, ""]


def _cell(text: str, longest: int = 160) -> str:
    r"""Text that stays inside its cell, as code so that nothing in it is markup.

    >>> _cell("a|b\n`c`")
    "`a/b 'c'`"
    """
    line = " ".join(text.split()).replace("|", "/").replace("`", "'")
    return f"`{line if len(line) <= longest else line[: longest - 3] + '...'}`"
