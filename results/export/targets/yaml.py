"""The canonical config as one YAML file, for reading and for programs of the user's own."""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from files_and_text.yaml_lines import dump_yaml
from results.export.config_values import Config
from results.export.facts import FACTS
from results.export.target import ExportDraft, FactExport, Target, written_in

FILE = "config.yaml"


def all_in_config_file() -> dict[str, FactExport]:
    """Every fact, expressed by the canonical config itself."""
    return {fact.name: written_in(FILE) for fact in FACTS}


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    return ExportDraft(files={FILE: dump_yaml(dict(config))}, facts=all_in_config_file())


TARGET = Target(name="yaml", summary="the canonical config as one YAML file", build=_build)
