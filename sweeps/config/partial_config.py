"""The valid part of a sweep file as a config, so that files and space are checked although keys are wrong."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from files_and_text.yaml_lines import KeyPath
from sweeps.config.paths import with_absolute_paths
from sweeps.config.sweep_config import SweepConfig
from sweeps.config.sweep_source import SweepSource
from sweeps.config.validation import dotted, findings

# What takes the place of a required key that is wrong or missing; nothing is checked against it.
_STAND_INS: dict[KeyPath, Any] = {
    ("name",): "stand-in",
    ("model",): "stand-in",
    ("model", "name"): "stand-in",
    ("data",): "stand-in",
    ("data", "train"): "stand-in",
    ("training",): {"max_steps": 100},
    ("training", "max_steps"): 100,
}


class PartialConfig:
    """The config of everything right, with absolute paths, and every problem found so far."""

    def __init__(self, source: SweepSource) -> None:
        self.problems = list(source.problems)
        self._source = source
        self._data = copy.deepcopy(source.data)
        self._wrong: set[KeyPath] = set()
        self.config = with_absolute_paths(self._validate(), source.folder_of).with_unwritten(source.unwritten)
        """Without what is wrong."""

    def is_sound(self, *path: str | int) -> bool:
        """Whether the key came from the user and is right, so that further checks of it mean something."""
        return not any(path[:length] in self._wrong for length in range(1, len(path) + 1))

    def add(self, key: KeyPath, message: str) -> None:
        """Report what is wrong with a key, unless something was before."""
        if self.is_sound(*key):
            self.problems.append(self._source.problem(key, message))

    def _validate(self) -> SweepConfig:
        # Every pass takes out all that it finds wrong, so a few passes do; the limit is for bugs here.
        for _ in range(100):
            try:
                return SweepConfig.model_validate(self._data)
            except ValidationError as error:
                found = findings(error, SweepConfig.model_json_schema())
            if not self._wrong:  # What later passes find follows from what was taken out.
                for path, message in found:
                    self.add(path, f"{dotted(path)} {message}")
            for path, _ in found:
                self._take_out(path)
        raise RuntimeError("the sweep file's problems could not be separated; this is a bug")

    def _take_out(self, path: KeyPath) -> None:
        """Remove the key; or its owner, if that is a list or short form, or is wrong for lack of the key."""
        owners: list[dict[str | int, Any]] = [self._data]
        for key in path[:-1]:
            below = owners[-1].get(key)
            if not isinstance(below, dict):
                break
            owners.append(below)
        taken = path[: len(owners)]
        if len(owners) > 1 and taken[-1] not in owners[-1] and taken not in _STAND_INS:
            owners, taken = owners[:-1], taken[:-1]
        self._wrong.add(taken)
        owners[-1].pop(taken[-1], None)
        if taken in _STAND_INS:
            owners[-1][taken[-1]] = copy.deepcopy(_STAND_INS[taken])
