"""A sweep file with the command line's overrides laid over it, and the line of each key."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, line_of, load_yaml
from sweeps.config.dropped_keys import DROPPED
from sweeps.config.sections.data import DataSection
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import ModelSection
from sweeps.config.validation import dotted
from sweeps.errors import ConfigError

_SHORT_FORMS = {
    "model": ModelSection.short_form,
    "data": DataSection.short_form,
    "metric": MetricSection.short_form,
}


class SweepSource:
    """The raw values, merged, and for every key path its file and line or its override.

    `text` stands in for a file that is not written yet. Raises ConfigError for what is no YAML mapping.
    """

    unwritten: Mapping[str, bytes] = MappingProxyType({})
    """Data files by their absolute paths that the sweep will write when it starts."""

    def __init__(self, file: Path, overrides: Mapping[str, Any], text: str | None = None) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._overridden: set[KeyPath] = set()
        try:
            data, self._lines = load_yaml(file if text is None else text, name=str(file))
        except InputError as error:
            raise ConfigError(error.problems) from None
        if not isinstance(data, dict | None):
            raise ConfigError([Problem("a sweep file must be a mapping of keys to values.", str(file), 1)])
        self.data: dict[str | int, Any] = copy.deepcopy(data or {})
        for key, value in overrides.items():
            self._override(key, value)

    def problem(self, key: KeyPath, message: str) -> Problem:
        """A problem with the file and line of its key, or with the override that set it."""
        message = message if message.endswith((".", "?")) else message + "."
        if key[:1] == ("lora",) and len(key) > 1 and f"lora_{key[1]}" in (self.data.get("lora") or {}):
            key = ("lora", f"lora_{key[1]}", *key[2:])  # as written: both spellings are read
        override = self._override_of(key)
        if override is not None:
            return Problem(message, f"override {dotted(override)}")
        return Problem(message, str(self.file), line_of(self._lines, key))

    def folder_of(self, key: KeyPath) -> Path:
        """Where a relative path at this key starts: the file's folder, for overrides the current one."""
        return Path(os.path.abspath(self.file)).parent if self._override_of(key) is None else Path.cwd()

    def leave_out_dropped_keys(self) -> None:
        """Take out of the file's values, not of the overrides, what only earlier versions knew."""
        for section, key in DROPPED:
            values = self.data.get(section)
            if isinstance(values, dict) and self._override_of((section, key)) is None:
                values.pop(key, None)

    def _override(self, dotted_key: str, value: Any) -> None:
        *above, last = dotted_key.split(".")
        owner: Any = self.data
        for depth, key in enumerate(above):
            below = owner.get(key)
            if isinstance(below, str) and depth == 0 and key in _SHORT_FORMS:
                # `model: NAME` in the file and `model.revision` on the command line.
                below = {_SHORT_FORMS[key]: below}
            if below is not None and not isinstance(below, dict):
                self.problems.append(Problem(f"{key} in the file holds no keys.", f"override {dotted_key}"))
                return
            owner[key] = {} if below is None else below
            owner = owner[key]
        owner[last] = copy.deepcopy(value)
        self._overridden.add((*above, last))

    def _override_of(self, key: KeyPath) -> KeyPath | None:
        """The override that set this key or the mapping it stands in; None when the file did."""
        return next((key[:n] for n in range(len(key), 0, -1) if key[:n] in self._overridden), None)
