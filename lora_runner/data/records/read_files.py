"""Files and folders -> records with their file and line."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import did_you_mean, similar
from lora_runner.data.records.hf_datasets import is_saved_dataset, read_hub, read_saved_dataset
from lora_runner.data.records.record import Origin, Problem, Record, parse_json, problems_error
from lora_runner.errors import DataError

_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation",
    "test": "test",
}  # fmt: skip
_NOT_RECORDS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.+-]+)?")


def read_records(source: str, *, split: str | None = None) -> list[Record]:
    """Read every record of a file, a folder or a hub id.

    `split` chooses among the files of a folder (by file or folder name: train.jsonl, test-00000.parquet,
    dev/) or the splits of a hub id; None takes all files of a folder. A single file ignores it.
    Raises DataError for a missing or empty source, an unknown suffix, and broken records (all in one error).
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if is_saved_dataset(path):
            return _not_empty(read_saved_dataset(path, split), source)
        return _not_empty(_read_files(_files_of(path, split)), source)
    if path.exists():
        return _not_empty(_read_files([path]), source)
    if _looks_like_a_path(source):
        raise DataError(_missing(path), path=source)
    return _not_empty(read_hub(source, split), source)


def is_single_file(source: str) -> bool:
    """Return whether the source is a single local file, which has no splits."""
    return Path(source).expanduser().is_file()


def _not_empty(records: list[Record], source: str) -> list[Record]:
    if not records:
        raise DataError("a dataset must hold at least one record, this one is empty", path=source)
    return records


def _looks_like_a_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or "\\" in source
        or Path(source).suffix.lower() in _READERS
        or not _HUB_ID.fullmatch(source)
    )


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no such file; the folder {str(path.parent)!r} does not exist either"
    # Two names are not alike by their endings alone.
    close = {entry.name for entry in path.parent.iterdir() if similar(path.stem, [entry.stem])}
    hint = did_you_mean(path.name, sorted(close))
    return f"no such file or folder{'.' if hint else ''}{hint}"


def _files_of(folder: Path, split: str | None) -> list[Path]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix.lower() in _READERS
        and path.name not in _NOT_RECORDS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise DataError(f"the folder holds no file that can be read ({', '.join(_READERS)})", path=folder)
    if split is None:
        return files
    wanted = _SPLIT_NAMES.get(split, split)
    splits = {path: _split_of(path.relative_to(folder), split) for path in files}
    named = [path for path in files if splits[path] == wanted]
    if not named and wanted == "train":
        named = [path for path in files if splits[path] is None]
    if not named:
        found = sorted({name for name in splits.values() if name}) or ["none"]
        raise DataError(
            f"no file of the folder belongs to split {split!r}; splits: {', '.join(found)}", path=folder
        )
    return named


def _split_of(path: Path, asked: str) -> str | None:
    for part in (path.stem, *path.parts[:-1]):
        word = re.split(r"[-_.]", part.lower(), maxsplit=1)[0]
        if asked.lower() in (part.lower(), word):
            return _SPLIT_NAMES.get(asked, asked)
        if word in _SPLIT_NAMES:
            return _SPLIT_NAMES[word]
    return None


def _read_files(files: list[Path]) -> list[Record]:
    records: list[Record] = []
    problems: list[Problem] = []
    for path in files:
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            message = f"a data file must end in {', '.join(_READERS)}, got {path.suffix or 'no suffix'!r}"
            raise DataError(message, path=path)
        try:
            records += reader(path, problems)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    if problems:
        raise problems_error(problems)
    return records


def _read_jsonl(path: Path, problems: list[Problem]) -> list[Record]:
    records: list[Record] = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        origin = Origin(str(path), number)
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if line:
                _keep(parse_json(line), origin, records, problems)
        except json.JSONDecodeError as error:
            problems.append((origin, f"broken JSON: {error.msg} at column {error.colno}"))
        except UnicodeDecodeError as error:
            problems.append(
                (origin, f"text must be UTF-8: byte {raw[error.start]:#04x} at position {error.start}")
            )
    return records


def _read_json(path: Path, problems: list[Problem]) -> list[Record]:
    text = _utf8(path)
    if text.lstrip().startswith("{"):
        # Many ".json" files hold one object per line; one object over several lines is not a list of records.
        try:
            whole = parse_json(text)
        except json.JSONDecodeError:
            return _read_jsonl(path, problems)
        if "\n" not in text.strip():
            return _read_jsonl(path, problems)
        raise DataError(
            f"a .json file must hold a list of records, got one object with the keys {', '.join(whole)}",
            path=path,
        )
    if not text.strip():
        return []
    try:
        items = parse_json(text)
    except json.JSONDecodeError as error:
        message = f"broken JSON: {error.msg} at column {error.colno}"
        raise DataError(message, path=path, line=error.lineno) from error
    if not isinstance(items, list):
        raise DataError(
            f"a .json file must hold a list of records, got {type(items).__name__}", path=path, line=1
        )
    records: list[Record] = []
    for number, item in enumerate(items, start=1):
        _keep(item, Origin(str(path), number, "item"), records, problems)
    return records


def _keep(item: Any, origin: Origin, records: list[Record], problems: list[Problem]) -> None:
    if isinstance(item, dict):
        records.append(Record(item, origin))
    else:
        problems.append((origin, f"a record must be a JSON object, got {type(item).__name__}"))


def _read_csv(path: Path, problems: list[Problem]) -> list[Record]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    records: list[Record] = []
    with _unlimited_csv_fields():
        rows = csv.reader(io.StringIO(_utf8(path), newline=""), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        start = 1  # a quoted field may span lines: a record's line is its first
        try:
            for row in rows:
                origin, start = Origin(str(path), start), rows.line_num + 1
                if not row:
                    continue
                if header is None:
                    header = [name.strip() for name in row]
                    if len(set(header)) != len(header):
                        raise DataError(
                            f"column names must differ, got {', '.join(header)}", path=path, line=origin.line
                        )
                elif len(row) != len(header):
                    problems.append(
                        (origin, f"the header has {len(header)} columns, this row has {len(row)}")
                    )
                else:
                    records.append(Record(dict(zip(header, row, strict=True)), origin))
        except csv.Error as error:
            raise DataError(f"broken CSV: {error}", path=path, line=start) from error
    return records


@contextmanager
def _unlimited_csv_fields() -> Iterator[None]:
    """Lift the csv module's global limit of 128 KiB per field, and restore it."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_parquet(path: Path, problems: list[Problem]) -> list[Record]:
    del problems  # a parquet file is readable as a whole or not at all
    import pyarrow
    import pyarrow.parquet

    records: list[Record] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    records.append(Record(row, Origin(str(path), len(records) + 1, "row")))
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, OverflowError) as error:
        # Arrow may return names and values from the file that Python cannot represent.
        raise DataError(f"broken parquet: {error}", path=path) from error
    return records


def _utf8(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"text must be UTF-8: byte {data[error.start]:#04x}", path=path, line=line) from error


_READERS: dict[str, Callable[[Path, list[Problem]], list[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
