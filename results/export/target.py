"""What an export target is: a name, and a function from the best config to the files it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from results.errors import ExportError
from results.export.facts import Config, facts_of, section

__all__ = ["Config", "Draft", "ExportResult", "FactExport", "Target", "by_code", "by_keys", "lost", "section"]


@dataclass(frozen=True, kw_only=True)
class FactExport:
    """How a target says one fact: by keys of its settings file, elsewhere, or not (all of it)."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    """Settings it becomes."""
    where: str = ""
    """Where else it stands."""
    lost: str = ""
    """What the target will not do, a sentence; empty when it does all."""


def by_keys(*, lost: str = "", **keys: Any) -> FactExport:
    """FactExport by settings of the target's own file."""
    return FactExport(keys=keys, lost=lost)


def by_code(where: str, *, lost: str = "") -> FactExport:
    """FactExport elsewhere: in a script, a head, another file."""
    return FactExport(where=where, lost=lost)


def lost(sentence: str) -> FactExport:
    """Not said at all."""
    return FactExport(lost=sentence)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Files that are ready to be written, and what the target cannot say."""

    files: Mapping[str, str | Path]
    """Name in the destination -> text, or a file to copy."""
    said: Mapping[str, FactExport]
    """Name of a fact -> how this target says it; every fact of the config has an entry."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know although nothing is lost."""
    check: Callable[[Path], object] | None = None
    """Reads the written files the way the target does; raises a ResultsError when they are refused."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One form of export."""

    name: str
    summary: str
    draft: Callable[[Config, Path | None, Version | None], Draft]
    """(best config, adapter folder or None, version of the target) -> Draft; ExportError when the config
    lacks what it needs."""
    package: str = ""
    """What `--target-version` is a version of; empty where nothing depends on one."""
    written_for: str = ""
    """The version whose published keys and code were read; the default."""
    oldest: str = ""
    before: str = ""
    """Versions from `oldest` on and below `before` read what is written."""

    def version(self, asked: str | None) -> Version | None:
        """The version to write for; ExportError when the target has none, or cannot write for it."""
        if not self.package:
            if asked is not None:
                raise ExportError(f"the {self.name} target is the same for every version; got {asked!r}")
            return None
        try:
            version = Version(asked or self.written_for)
        except InvalidVersion:
            rule = f"a target version reads as {self.written_for}"
            raise ExportError(f"{rule}; got {asked!r}") from None
        if not Version(self.oldest) <= version < Version(self.before):
            raise ExportError(
                f"the {self.name} target is written for {self.package} >= {self.oldest}, < {self.before} "
                f"({self.written_for} when no version is named); got {asked}"
            )
        return version


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export wrote."""

    target: str
    files: list[Path]
    lossy: list[str]
    """What this target cannot express; also written into its files."""
    notes: list[str]
    said: Mapping[str, FactExport]
    """Name of a fact -> how the files say it."""

    @property
    def places(self) -> list[Path]:
        """The files, and for those that lie in a folder of their own that folder."""
        top = min((file.parent for file in self.files), key=lambda folder: len(folder.parts))
        return list(dict.fromkeys(top / file.relative_to(top).parts[0] for file in self.files))


def lossy_of(config: Config, said: Mapping[str, FactExport]) -> list[str]:
    """What is not said, a sentence each, in the order of the facts.

    Raises ExportError for a fact of the config that the target passes over in silence.
    """
    silent = [
        fact.name
        for fact in facts_of(config)
        if (how := said.get(fact.name)) is None or not (how.keys or how.where or how.lost)
    ]
    if silent:
        raise ExportError(f"the target says nothing about {', '.join(silent)}")
    return list(dict.fromkeys(said[fact.name].lost for fact in facts_of(config) if said[fact.name].lost))


def keys_of(config: Config, said: Mapping[str, FactExport]) -> dict[str, Any]:
    """All settings, in the order of the facts; what the config does not have is left out."""
    keys: dict[str, Any] = {}
    for fact in facts_of(config):
        keys |= {name: value for name, value in said[fact.name].keys.items() if value is not None}
    return keys
