"""``dpsjax doctor TRACE``: options, and the page."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from dpsjax.lab.doctor import diagnosis
from dpsjax.lab.doctor.logs import Log, read_log

_LISTED = 5


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Say on a page what is wasted in recorded rollouts, and what a selector would have saved.

    Reads a trace of this library; CSV with prompt,passes,trials[,step]; JSONL with a line a rollout
    (dumps of verl or prime-rl, a file or their folder); Parquet of TRL's logged completions.
    """

    trace: Annotated[Path, tyro.conf.Positional]
    """The file, or a folder of files."""
    solved: float = 0.5
    """A reward above it is a pass."""
    out: Path | None = None
    """Write the page to this file too."""


def run(arguments: DoctorArguments) -> str:
    """Make the page.

    Args:
        arguments: the options.

    Returns:
        the page, Markdown.

    Raises:
        OSError: the log cannot be read, or the page not written.
        ValueError: it is no log; the message names the place.
        ImportError: for Parquet without pyarrow.
    """
    text = page(read_log(arguments.trace, arguments.solved), str(arguments.trace))
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return text


def page(log: Log, title: str) -> str:
    """The page of a log."""
    groups, rollouts = log.step.size, int(log.trials.sum())
    steps, prompts = np.unique(log.step).size, np.unique(log.prompt).size
    hit = diagnosis.mixed(log)
    dead = int(log.trials[~hit].sum())
    lines = [
        f"# {title}",
        "",
        f"{groups:,} groups of {prompts:,} prompts in {steps:,} steps, {rollouts:,} rollouts.",
        f"**{dead:,} rollouts ({dead / max(rollouts, 1):.0%}) are in groups that all failed or all "
        "passed: they teach nothing.**",
        "",
        *_table(log),
        "",
        *_unsolved(log),
        *_oddities(log, hit),
        "",
        *_replays(log),
    ]
    return "\n".join(lines) + "\n"


def _table(log: Log) -> list[str]:
    rows = ["| steps | all wrong | mixed | all right |", "|---|---|---|---|"]
    for name, *shares in diagnosis.over_time(log):
        rows.append(f"| {name} | " + " | ".join(_shown(found) for found in shares) + " |")
    return rows


def _unsolved(log: Log) -> list[str]:
    never = diagnosis.never_solved(log)
    if not never.size:
        return [f"- No prompt of {diagnosis.ENOUGH} or more groups was never solved."]
    spent = int(log.trials[np.isin(log.prompt, never)].sum())
    named = "; ".join(_short(log.names[i]) for i in never[:_LISTED])
    return [
        f"- {never.size:,} prompts were never solved in {diagnosis.ENOUGH} or more groups; they "
        f"took {spent:,} rollouts: {named}{' ...' if never.size > _LISTED else ''}"
    ]


def _oddities(log: Log, hit: np.ndarray) -> list[str]:
    shaped, parsed = diagnosis.only_shaped(log), log.parsed[~np.isnan(log.parsed)]
    nothing = float(1 - parsed.mean()) if parsed.size else 0.0
    found = {
        "rollouts of a prompt that came twice in one step": diagnosis.repeated(log),
        "groups of fewer rollouts than the others": diagnosis.incomplete(log),
        "rollouts without a reward, left out here": log.no_verdict,
        f"groups of one verdict whose rewards differ, beside {int(hit.sum()):,} that are mixed: "
        "the reward tells form from form, not right from wrong": shaped,
    }
    lines = [f"- {count:,} {what}." for what, count in found.items() if count]
    if nothing > 0:
        lines.append(f"- {nothing:.1%} of the answers parse to nothing: look at the verifier.")
    return lines or ["- No duplicates, no incomplete groups, no rewards without a verdict."]


def _replays(log: Log) -> list[str]:
    group = max(2, int(np.median(log.trials)))
    found = {n: diagnosis.replay(log, s) for n, s in diagnosis.contenders(group).items()}
    kept = {name: replay for name, replay in found.items() if replay is not None}
    if not kept:
        return ["No prompt comes twice: there is nothing that a belief could have known."]
    rows = [
        "If only the half of each step's prompts had been rolled out that a belief, following this "
        "log, held likeliest to be mixed (among those rolled out; of a whole pool there is more to "
        "choose):",
        "",
        "| belief of | its groups mixed | rollouts saved for as many mixed groups [95 %] |",
        "|---|---|---|",
    ]
    for name, replay in kept.items():
        interval = f"{replay.saved:.0%} [{replay.low:.0%}, {replay.high:.0%}]"
        rows.append(f"| {name} | {replay.effective:.0%} | {interval} |")
    return rows


def _shown(found: diagnosis.Share) -> str:
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"


def _short(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= 40 else f"{text[:37]}..."
