"""What an export target is: a name, and a function from the best config to the files it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Files that are ready to be written, and what the target cannot say."""

    files: Mapping[str, str | Path]
    """Name in the destination -> text, or a file to copy."""
    lossy: list[str] = field(default_factory=list)
    """What the config asks for and this target will not do, a sentence each; empty when it does all."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know although nothing is lost."""
    check: Callable[[Path], object] | None = None
    """Reads the written files the way the target does; raises a ResultsError when they are refused."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One form of export."""

    name: str
    summary: str
    draft: Callable[[Mapping[str, Any], Path | None], Draft]
    """(best config, adapter folder or None) -> Draft; ExportError when the config lacks what it needs."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export wrote."""

    target: str
    files: list[Path]
    lossy: list[str]
    """What this target cannot express; also written into its files."""
    notes: list[str]


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of the best config; absent sections read as empty."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}
