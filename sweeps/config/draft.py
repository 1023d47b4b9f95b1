"""From raw data to a config and everything that is wrong with it.

pydantic stops looking at a part whose keys are wrong, so one pass would hide what the rules between keys have
to say. Here the wrong keys are taken out and the rest is looked at again, until what is left is a config.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from files_and_text.nearest_name import nearest
from files_and_text.yaml_lines import KeyPath
from search_spaces.rows import PARAMETERS
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import DataSection, ModelSection
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.config.sections.search import SearchSection
from sweeps.config.sections.tracking import TrackingSection
from sweeps.config.sections.training import LoraSection, TrainingSection
from sweeps.config.sweep_config import SweepConfig

SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSection,
    "data": DataSection,
    "training": TrainingSection,
    "lora": LoraSection,
    "metric": MetricSection,
    "search": SearchSection,
    "reliability": ReliabilitySection,
    "tracking": TrackingSection,
}
MAX_GUESSES = 200
"""So many wrong keys get a guess at what was meant; a file with thousands would take minutes."""

# What stands in for a required key that is wrong or missing; nothing is checked against it.
_STAND_INS: dict[KeyPath, Any] = {
    ("name",): "stand-in",
    ("model",): {"name": "stand-in"},
    ("model", "name"): "stand-in",
    ("data",): {"train": "stand-in"},
    ("data", "train"): "stand-in",
    ("training",): {"max_steps": 100},
    ("training", "max_steps"): 100,
    ("train_embeddings", "tokens"): ["stand-in"],
    ("metric", "name"): "exact_match",
}


class Draft:
    """A config that holds what was right, the findings about what was not, and which keys those are."""

    def __init__(self, data: dict[str | int, Any]) -> None:
        self.findings: list[tuple[KeyPath, str]] = []
        self._out: set[KeyPath] = set()
        self._data = copy.deepcopy(data)
        self.config = self._validate()

    def is_sound(self, *path: str | int) -> bool:
        """Whether the key came from the user and is right, so that further checks of it mean something."""
        return not any(path[:length] in self._out for length in range(1, len(path) + 1))

    def _validate(self) -> SweepConfig:
        # Every pass takes out every key it complains of, so a few passes do; the limit is for bugs here.
        for _ in range(200):
            try:
                return SweepConfig.model_validate(self._data)
            except ValidationError as error:
                details = error.errors(include_url=False, include_input=True)
            found = [
                finding
                for count, detail in enumerate(details)
                for finding in _findings(detail, may_guess=count < MAX_GUESSES)
            ]
            for path, message, involved in found:
                if all(self._is_untouched(key) for key in involved):
                    self.findings.append((path, message))
            for path, _, _ in found:
                self._take_out(path)
        raise RuntimeError("the sweep file's problems could not be separated; this is a bug")

    def _is_untouched(self, path: KeyPath) -> bool:
        """Whether nothing at or below the key was taken out."""
        return self.is_sound(*path) and not any(out[: len(path)] == path for out in self._out)

    def _take_out(self, path: KeyPath) -> None:
        # Inside a list, or a mapping given in its short form, the owner goes as a whole.
        node: Any = self._data
        owner: dict[str | int, Any] = self._data
        there: list[str | int] = []
        for key in path:
            if not isinstance(node, dict):
                break
            owner = node
            there.append(key)
            node = node.get(key)
        taken = tuple(there)
        self._out.add(taken)
        owner.pop(taken[-1], None)
        if taken in _STAND_INS:
            owner[taken[-1]] = copy.deepcopy(_STAND_INS[taken])


def _findings(detail: ErrorDetails, *, may_guess: bool) -> Iterator[tuple[KeyPath, str, list[KeyPath]]]:
    """What one pydantic error says: (key, message, the keys whose comparison it is)."""
    path: KeyPath = detail["loc"]
    if detail["type"] == "rule":
        context = detail["ctx"]
        involved = [(*path, key) for key in context["involves"]]
        for deeper, said in context["findings"]:
            yield (*path, *deeper), f"{dotted((*path, *deeper))} {said}", involved
    elif detail["type"] == "extra_forbidden":
        said = _unknown_key(path) if may_guess else f"unknown key {dotted(path)!r}"
        yield path, said, []
    elif detail["type"] == "missing":
        model = SweepConfig if len(path) == 1 else SECTIONS[str(path[0])]
        told = (model.model_fields[str(path[-1])].description or "").partition(";")[0].rstrip(".")
        yield path, f"{dotted(path)} is missing: {told}", []
    else:
        # No field is left to pydantic's own checks; should one be, its words are better than none.
        yield path, f"{dotted(path)}: {detail['msg']}", []


def dotted(path: KeyPath) -> str:
    """("data", "train") as data.train, list items as guidelines[0], the file itself as "the sweep file"."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) and text else f"{'.' if text else ''}{key}"
    return text or "the sweep file"


def _unknown_key(path: KeyPath) -> str:
    *above, key = path
    model = SECTIONS[str(above[0])] if above else SweepConfig
    place = dotted(tuple(above))
    homes = [name for name, section in SECTIONS.items() if key in section.model_fields and name not in above]
    if above and key in SweepConfig.model_fields:
        return f"unknown key {key!r} in {place}. It stands at the top of the file, not under {place}"
    if homes and "Did you mean" not in nearest(key, model.model_fields):
        return f"unknown key {key!r} in {place}. It stands under {' or '.join(homes)}"
    if key in PARAMETERS:
        return f"unknown key {key!r} in {place}. It is searched: its range stands under space"
    return f"unknown key {key!r} in {place}.{nearest(key, model.model_fields)}"
