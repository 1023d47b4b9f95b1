"""The resolved sweep file: every value that a sweep runs with."""

from __future__ import annotations

from typing import Any

from files_and_text.yaml_lines import dump_yaml
from lora_runner.data_spec import DataSpec
from sweeps.config.sections.base import Section
from sweeps.config.sections.data import DataSection
from sweeps.config.sweep_config import SweepConfig

_HEADER = """\
# The sweep file as it is run: every value written out, paths absolute. Running this file is the same sweep.
# What is not listed is null: the program decides. A database's password is never here: see `storage`.
"""


def resolved(config: SweepConfig) -> str:
    """The config as a sweep file that `load_sweep` reads back to an equal config (paths must be absolute)."""
    return f"{_HEADER}\n{dump_yaml(_plain(config))}"


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
