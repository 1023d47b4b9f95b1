"""The resolved sweep file: every value that a sweep runs with."""

from __future__ import annotations

import re
from typing import Any

from files_and_text.yaml_lines import dump_yaml
from lora_runner.data_spec import DataSpec
from sweeps.config.sections.base import Section
from sweeps.config.sections.data import DataSection
from sweeps.config.sweep_config import SweepConfig

HEADER_START = "# The sweep file as it is run"
_HEADER = f"""\
{HEADER_START}: every value written out. Running this file, or this folder, is the same sweep.
# Paths are absolute, those in this folder relative to it: it may be renamed, moved or copied.
# What is not listed is null: the program decides. A database's password is never here: see `storage`.
"""


def resolved(config: SweepConfig) -> str:
    """The config as a sweep file that `load_sweep` reads back, from the run folder, to an equal config.

    The config's paths must be absolute.
    """
    inside = re.compile(rf"((?:journal:|sqlite(?:\+\w+)?:///)?){re.escape(str(config.run_folder))}/(?=.)")
    return f"{_HEADER}\n{dump_yaml(_relative(_plain(config), inside))}"


def _relative(value: Any, inside: re.Pattern[str]) -> Any:
    """The same with paths in the run folder relative to it."""
    if isinstance(value, dict):
        return {key: _relative(item, inside) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, inside) for item in value]
    return inside.sub(r"\1./", value, count=1) if isinstance(value, str) and inside.match(value) else value


def _plain(value: Any) -> Any:
    """Builtins only. A null is left out of a section if it is the default; never out of a user's mapping."""
    if isinstance(value, Section | DataSpec):
        fields = (DataSection if isinstance(value, DataSpec) else type(value)).model_fields
        items = {name: getattr(value, name) for name in fields}
        # A null that is not the default has a meaning (max_eval_examples: all of them).
        kept = (name for name, item in items.items() if item is not None or fields[name].default is not None)
        return {name: _plain(items[name]) for name in kept}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
