"""From rows to problems: which column is the prompt, the answer, the source, the id."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpsjax import checks
from dpsjax.tasks.base import Problem
from dpsjax.tasks.data.rows import Row, read_rows

# The usual names, the first that a row has counts; a dot goes into a nested object.
PROMPT = ("prompt", "question", "problem", "messages")
ANSWER = ("answer", "ground_truth", "reward_model.ground_truth", "final_answer", "solution")
ID = ("id", "unique_id", "extra_info.index")
SOURCE = ("source", "data_source", "type", "subject", "subfield")
IMAGES = ("images",)


class Columns(NamedTuple):
    """Names of columns; "" for the usual ones.

    Attributes:
        prompt: See :data:`PROMPT`.
        answer: See :data:`ANSWER`.
        id: See :data:`ID`.
        source: See :data:`SOURCE`.
    """

    prompt: str = ""
    answer: str = ""
    id: str = ""
    source: str = ""


_MISSING = object()


def lookup(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of some columns that a row has, not None; else None.

    >>> lookup({"reward_model": {"ground_truth": "7"}}, ("answer", "reward_model.ground_truth"))
    '7'
    """
    checks.require_type(Mapping, "a row", values=values)
    checks.require_items(str, "the name of a column", names=names)
    for name in names:
        found: Any = values.get(name, _MISSING)
        if found is _MISSING:
            found = values
            for part in name.split("."):
                found = found.get(part, _MISSING) if isinstance(found, Mapping) else _MISSING
        if found is not _MISSING and found is not None:
            return found
    return None


def problems_of(
    paths: Sequence[Path],
    columns: Columns,
    *,
    split: str = "train",
    suffix: str = "",
    by_file: bool = False,
) -> tuple[Problem, ...]:
    """The problems of files, ids unique over all of them.

    Args:
        paths: see :func:`dpsjax.tasks.data.rows.read_rows`.
        columns: names.
        split: of folders that hold several.
        suffix: put after each question.
        by_file: report problems under the names of their files, whatever the rows say.

    Returns:
        problems; ``answer`` holds ``row`` (all columns but pictures), ``prompt`` (as in the file),
        ``answer`` (what the column of answers says, or None).

    Raises:
        ValueError: a row lacks a column, has another type, or the id of another; with file and
            line.
        OSError: a file cannot be read.
    """
    checks.require_items(Path, "a file", paths=paths)
    checks.require_type(str, "a text", split=split, suffix=suffix)
    problems, places = [], {}
    for path, name in zip(paths, _names(paths), strict=True):
        for row in read_rows(path, split):
            problem = _problem(row, name, columns, suffix, path)
            if by_file:
                problem = dataclasses.replace(problem, source=name)
            if problem.id in places:
                if _named(row, columns) is not None:
                    raise ValueError(
                        f"{row.where}: the id {problem.id!r} is that of {places[problem.id]} too: "
                        "what is believed of a prompt needs a name of its own; rename one"
                    )
                problem = _numbered(problem, places)
            places[problem.id] = row.where
            problems.append(problem)
    return tuple(problems)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: the shortest end of its path that tells it from the others."""
    for length in range(1, 8):
        names = ["/".join(path.absolute().with_suffix("").parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a file is given twice: {', '.join(map(str, paths))}")


def _digest(row: Row) -> str:
    """What tells rows apart that ask the same of other pictures."""
    images = lookup(row.values, IMAGES)
    return hashlib.sha256(repr(images).encode()).hexdigest() if images else ""


def _named(row: Row, columns: Columns) -> Any:
    return lookup(row.values, (columns.id,) if columns.id else ID)


def _numbered(problem: Problem, places: Iterable[str]) -> Problem:
    """A copy of an earlier row, by its number."""
    number = 2
    while f"{problem.id}-{number}" in places:
        number += 1
    return dataclasses.replace(problem, id=f"{problem.id}-{number}")


def _problem(row: Row, file: str, columns: Columns, suffix: str, path: Path) -> Problem:
    prompt = lookup(row.values, (columns.prompt,) if columns.prompt else PROMPT)
    if prompt is None:
        wanted = f"column {columns.prompt!r}" if columns.prompt else f"any of {', '.join(PROMPT)}"
        raise ValueError(
            f"{row.where}: has not {wanted}, but {', '.join(row.values)}; name the column of the "
            "question with --task.prompt-field"
        )
    asked = _asked(prompt, suffix, row.where)
    answer = lookup(row.values, (columns.answer,) if columns.answer else ANSWER)
    if columns.answer and answer is None:
        raise ValueError(f"{row.where}: has no column {columns.answer!r} (--task.answer-field)")
    source = lookup(row.values, (columns.source,) if columns.source else SOURCE)
    if columns.source and source is None:
        raise ValueError(f"{row.where}: has no column {columns.source!r} (--task.source-field)")
    own = _named(row, columns)
    if columns.id and own is None:
        raise ValueError(f"{row.where}: has no column {columns.id!r} (--task.id-field)")
    if own is None:
        text = f"{asked!r}{answer!r}{_digest(row)}"
        own = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    elif not isinstance(own, str | int):
        raise ValueError(f"{row.where}: the id {own!r} must be a text or a whole number")
    source = file if source is None else str(source)
    images = _pictures(lookup(row.values, IMAGES), path, row.where)
    kept = {name: value for name, value in row.values.items() if not images or name not in IMAGES}
    held = {"row": kept, "prompt": prompt, "answer": answer}
    return Problem(asked, held, source, f"{file}/{own}", images)


def _pictures(given: Any, path: Path, where: str) -> tuple[bytes, ...]:
    """Contents of picture files: of a column with bytes, paths, or both as ``datasets`` has it."""
    found = []
    for item in given if isinstance(given, list | tuple) else [given] if given else []:
        data = item.get("bytes") or item.get("path") if isinstance(item, Mapping) else item
        if isinstance(data, str):
            data = (path.parent / data).read_bytes()
        if not isinstance(data, bytes):
            raise ValueError(
                f"{where}: a picture must be bytes or a path, got {checks.shown(item)}"
            )
        found.append(data)
    return tuple(found)


def _asked(prompt: Any, suffix: str, where: str) -> str | tuple[Mapping[str, Any], ...]:
    """A text or messages, the suffix behind the last."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError(f"{where}: the question is empty")
        return prompt + suffix
    sound = isinstance(prompt, Sequence) and len(prompt) > 0
    if not sound or not all(
        isinstance(message, Mapping) and {"role", "content"} <= set(message) for message in prompt
    ):
        raise ValueError(
            f"{where}: the question must be a text, or a list of messages with role and content, "
            f"got {checks.shown(prompt)}"
        )
    messages = tuple(dict(message) for message in prompt)
    if suffix:
        messages[-1]["content"] = f"{messages[-1]['content']}{suffix}"
    return messages


def held_out(
    problems: Sequence[Problem], count: int | None
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Divide problems for ever by their ids.

    Args:
        problems: of a file without a file of held-out problems.
        count: held out; None for a tenth, at least 1 and at most 500.

    Returns:
        ``(train, test)``, each in order.

    Raises:
        ValueError: nothing would be left to train on.
    """
    checks.require_items(Problem, "a Problem", problems=problems)
    checks.require_counts(**checks.given(count=count))
    count = min(max(len(problems) // 10, 1), 500) if count is None else count
    if count >= len(problems):
        raise ValueError(
            f"held_out: count={count} of {len(problems)} problems leaves none to train on"
        )
    order = sorted(problems, key=lambda problem: hashlib.sha256(problem.id.encode()).digest())
    chosen = {problem.id for problem in order[:count]}
    train = tuple(problem for problem in problems if problem.id not in chosen)
    return train, tuple(problem for problem in problems if problem.id in chosen)
