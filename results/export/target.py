"""An export target: a name, and a function from the best config to the files that the program takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from results.errors import ExportError
from results.export.config_values import Config
from results.export.facts import facts_of


@dataclass(frozen=True, kw_only=True)
class FactExport:
    """How a target expresses one fact."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys and values of the target's settings file."""
    location: str = ""
    """Where it is instead: a constant of the script, another file, the head of a file."""
    lost: str = ""
    """A sentence on what the target does differently; empty when it does the same."""


def as_settings(*, lost: str = "", **settings: Any) -> FactExport:
    """A fact that the target's settings file expresses."""
    return FactExport(settings=settings, lost=lost)


def written_in(location: str, *, lost: str = "") -> FactExport:
    """A fact that is elsewhere: in a script, a head, another file."""
    return FactExport(location=location, lost=lost)


def not_expressed(sentence: str) -> FactExport:
    return FactExport(lost=sentence)


@dataclass(frozen=True, kw_only=True)
class ExportDraft:
    """Files that are ready to be written, and how they express each fact."""

    files: Mapping[str, str | Path]
    """Name in the destination -> text, or a file to copy."""
    facts: Mapping[str, FactExport]
    """FactExports by the fact's name; every fact of the config has an entry."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know although nothing is lost."""
    check: Callable[[Path], object] | None = None
    """Reads the written files as the target does; raises a ResultsError when it would refuse them."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One form of export."""

    name: str
    summary: str
    build: Callable[[Config, Path | None, Version | None], ExportDraft]
    """(best config, adapter folder or None, version of the target) -> ExportDraft.

    Raises ExportError when the config lacks what the target needs.
    """
    reads_records: bool = False
    """Whether it reads records with its own code, so that the sweep's are written for it."""
    package: str = ""
    """The package that `--target-version` refers to; empty when the files are the same for every version."""
    written_for: str = ""
    """The version whose published keys and code were read; the default."""
    oldest: str = ""
    before: str = ""
    """What is written suits versions >= `oldest` and < `before`."""

    def version(self, asked: str | None) -> Version | None:
        """The version to write for; raises ExportError when the target does not support `asked`."""
        if not self.package:
            if asked is not None:
                raise ExportError(f"the {self.name} target is the same for every version; got {asked!r}")
            return None
        try:
            version = Version(asked or self.written_for)
        except InvalidVersion:
            rule = f"a target version looks like {self.written_for}"
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
    facts: Mapping[str, FactExport]
    """Name of a fact -> how the files express it."""

    @property
    def top_level_paths(self) -> list[Path]:
        """The files at the top of the destination, and its folders."""
        top = min((file.parent for file in self.files), key=lambda folder: len(folder.parts))
        return list(dict.fromkeys(top / file.relative_to(top).parts[0] for file in self.files))


def lossy_sentences(config: Config, facts: Mapping[str, FactExport]) -> list[str]:
    """What the target does differently, a sentence each, in the order of the facts.

    Raises ExportError when a fact of the config is neither expressed nor named as lost.
    """
    exports = {fact.name: facts.get(fact.name, FactExport()) for fact in facts_of(config)}
    missing = [name for name, how in exports.items() if how == FactExport()]
    if missing:
        raise ExportError(f"the target says nothing about {', '.join(missing)}")
    return list(dict.fromkeys(how.lost for how in exports.values() if how.lost))


def settings_of(config: Config, facts: Mapping[str, FactExport]) -> dict[str, Any]:
    """All settings, in the order of the facts; None and facts that the config does not have are left out."""
    settings: dict[str, Any] = {}
    for fact in facts_of(config):
        exported = facts[fact.name].settings
        settings |= {name: value for name, value in exported.items() if value is not None}
    return settings
