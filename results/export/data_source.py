"""Where a sweep's records lie: a file, a folder, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any

_LOADERS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A source as the sweep file names it, taken apart."""

    name: str
    """Path or hub id."""
    part: str | None
    """The configuration of a hub id."""
    loader: str | None
    """datasets' loader of the file; None for a hub id or a folder."""

    @property
    def is_hub(self) -> bool:
        return self.loader is None and not _is_path(self.name)


def data_source(source: Any) -> DataSource | None:
    """Take a source apart; None when the sweep recorded none."""
    if not source:
        return None
    text = str(source)
    loader = _LOADERS.get(PurePath(text).suffix.lower())
    if loader is None and not _is_path(text):
        name, _, part = text.partition(":")
        return DataSource(name=name, part=part or None, loader=None)
    return DataSource(name=text, part=None, loader=loader)


def _is_path(text: str) -> bool:
    absolute = PurePath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return absolute or text.startswith((".", "~"))
