"""Rows of data from files: JSON, JSON lines, Parquet, folders of ``datasets`` and of Geometry3k."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dpsjax import checks

_LINES = (".jsonl", ".ndjson")


class Row(NamedTuple):
    """A row and where it stands.

    Attributes:
        values: By column.
        where: File and line, for messages.
    """

    values: dict[str, Any]
    where: str


def read_rows(path: Path, split: str = "train") -> list[Row]:
    """All rows of a file or folder.

    Args:
        path: ``.jsonl``, ``.json`` (a list of objects, or one a line), ``.parquet``, or a folder
            that ``datasets.Dataset.save_to_disk`` wrote, or that holds Geometry3k's folders.
        split: of a folder that holds several.

    Returns:
        the rows, at least one.

    Raises:
        ValueError: a row is none, with its file and line; or there is none.
        FileNotFoundError: there is no such file.
        ImportError: an extra is not installed.
    """
    checks.require_type((str, Path), "a file", path=path)
    checks.require_type(str, "the name of a split", split=split)
    path = Path(path)
    if path.is_dir():
        folders = sorted(path.glob("*/data.json"))
        rows = [_problem_in(file) for file in folders] or list(_from_datasets(path, split))
    elif not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    elif path.suffix == ".parquet":
        rows = list(_from_parquet(path))
    elif path.suffix in (".json", *_LINES):
        rows = list(_from_json(path))
    else:
        raise ValueError(
            f"{path}: a file of problems ends in .jsonl, .json or .parquet, or is a folder of "
            "datasets; rename or convert it"
        )
    if not rows:
        raise ValueError(f"{path} is empty: it must hold a row for each problem")
    return rows


def _from_json(path: Path) -> Iterator[Row]:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix not in _LINES and data.lstrip()[:1] == b"[":
        items = _parsed(data, str(path))
        for number, values in enumerate(items, 1):
            yield _row(values, f"{path}, item {number}")
        return
    # Not splitlines: U+2028 and others like it may stand inside a string.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _row(_parsed(line, where), where)


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error}): convert the file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(
            f"{where}: not JSON ({error.msg} at {place}column {error.colno}): correct the row"
        ) from None
    except RecursionError:
        raise ValueError(f"{where}: JSON nested too deeply") from None


def _row(values: Any, where: str) -> Row:
    if not isinstance(values, dict):
        shown = checks.shown(values)
        raise ValueError(f"{where}: a row must be an object with a field for each column: {shown}")
    return Row(values, where)


def _from_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError(f"{path}: Parquet needs pyarrow: pip install 'dpsjax[parquet]'") from None
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({str(error)[:200]})") from None
    for number, values in enumerate(table.to_pylist(), 1):
        yield _row(values, f"{path}, row {number}")


def _problem_in(file: Path) -> Row:
    """A problem of Geometry3k, as a row of the Parquet files made of it."""
    values = _parsed(file.read_bytes(), str(file))
    try:
        choice = values["choices"]["ABCD".index(values["answer"])]
        text, kind = values["problem_text"], values["problem_type_goal"][0]
        picture = (file.parent / "img_diagram.png").read_bytes()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: not a problem of Geometry3k ({type(error).__name__}: {error})"
        ) from None
    row = {"id": values.get("id", file.parent.name), "problem": f"<image>{text}", "type": kind}
    return _row({**row, "answer": choice, "images": [{"bytes": picture}]}, str(file))


def _from_datasets(path: Path, split: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{path}: a folder of datasets needs the library: pip install 'dpsjax[datasets]'"
        ) from None
    try:
        found: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # of many kinds
        raise ValueError(
            f"{path}: no folder of datasets.save_to_disk ({str(error)[:200]})"
        ) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ValueError(f"{path} has no split {split!r}, but {', '.join(map(str, found))}")
        found = found[split]
    for number, values in enumerate(found, 1):
        yield _row(dict(values), f"{path}, row {number}")
