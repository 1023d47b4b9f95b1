"""The canonical config as one YAML file, for people and for programs of their own."""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from files_and_text.yaml_lines import dump_yaml
from results.export.facts import FACTS
from results.export.target import Config, Draft, FactExport, Target, by_code

FILE = "config.yaml"


def recorded() -> dict[str, FactExport]:
    """Every fact, said by the canonical config itself."""
    return {fact.name: by_code(FILE) for fact in FACTS}


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    return Draft(files={FILE: dump_yaml(dict(config))}, said=recorded())


TARGET = Target(name="yaml", summary="the canonical config as one YAML file", draft=_draft)
