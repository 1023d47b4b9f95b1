"""The canonical config as one YAML file, for people and for programs of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.export.target import Draft, Target
from search_spaces import dump_yaml

FILE = "config.yaml"


def _draft(config: Mapping[str, Any], adapter_folder: Path | None) -> Draft:
    return Draft(files={FILE: dump_yaml(dict(config))})


TARGET = Target(name="yaml", summary="the canonical config as one YAML file", draft=_draft)
