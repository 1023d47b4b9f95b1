"""Where a sweep's records are: a file, a folder, or a hub id."""

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
    """`data.train` or `data.eval` of the sweep file, parsed."""

    name: str
    """Path or hub id."""
    subset: str | None
    """What follows the colon of a hub id: the name of its configuration."""
    loader: str | None
    """The loader of `datasets` for the file; None for a hub id or a folder."""

    @property
    def is_hub_id(self) -> bool:
        return self.loader is None and not _is_path(self.name)


def parse_data_source(source: Any) -> DataSource | None:
    """None when the sweep recorded no source."""
    if not source:
        return None
    text = str(source)
    loader = _LOADERS.get(PurePath(text).suffix.lower())
    if loader is None and not _is_path(text):
        name, _, subset = text.partition(":")
        return DataSource(name=name, subset=subset or None, loader=None)
    return DataSource(name=text, subset=None, loader=loader)


def _is_path(text: str) -> bool:
    absolute = PurePath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return absolute or text.startswith((".", "~"))
