"""The disk that frozen trials take, and how many may be kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files_and_text.numbers import number, plural
from search_spaces import SearchSpace
from sweeps.plan.specs import StudySpec

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class FrozenDisk:
    """What frozen trials may take, for `sweeps plan`."""

    most_gib: float
    """`reliability.frozen_gib`."""
    each_gib: tuple[float, float]
    """What one keeps, at the lowest and at the highest rank of the space."""
    trials: int
    """Of the sweep; the guideline default is never frozen."""
    free_gib: float | None
    """On the run folder's disk; None where checkpoints are kept elsewhere."""

    @property
    def kept(self) -> int:
        """How many are kept at least."""
        largest = max(self.each_gib)
        most = self.trials - 1
        return most if not largest else min(most, int(self.most_gib / largest))

    @property
    def taken_gib(self) -> float:
        """The most that they can take."""
        return min(self.most_gib, (self.trials - 1) * max(self.each_gib))

    @property
    def warning(self) -> str | None:
        """Why this does not work as asked for; None where it does."""
        if not self.kept and self.trials > 1:
            return (
                f"no trial can be frozen: its checkpoint takes {_gib(max(self.each_gib))} GiB, "
                f"reliability.frozen_gib is {number(self.most_gib)}. What is stopped is pruned for good"
            )
        if self.free_gib is not None and self.taken_gib > self.free_gib:
            return (
                f"frozen trials may take {_gib(self.taken_gib)} GiB, and {_gib(self.free_gib)} GiB are free "
                "in the run folder: lower reliability.frozen_gib"
            )
        return None

    def text(self) -> str:
        """`at most 6.2 GiB for frozen trials, 0.413 GiB each (reliability.frozen_gib: 20)`."""
        low, high = self.each_gib
        each = _gib(high) if _gib(low) == _gib(high) else f"{_gib(low)} to {_gib(high)}"
        what = (
            "frozen trials"
            if self.kept >= self.trials - 1
            else f"{plural(self.kept, 'frozen trial')} or more"
        )
        return (
            f"at most {_gib(self.taken_gib)} GiB for {what}, {each} GiB each "
            f"(reliability.frozen_gib: {number(self.most_gib)})"
        )

    def summary(self) -> dict[str, Any]:
        """Plain values, for `sweeps plan --json`."""
        return {
            "frozen_gib": self.most_gib,
            "most_gib": self.taken_gib,
            "each_gib": list(self.each_gib),
            "kept_at_least": self.kept,
            "free_gib": self.free_gib,
        }


def frozen_disk(study_spec: StudySpec) -> FrozenDisk | None:
    """The disk that frozen trials may take; None for a sweep that freezes none."""
    if study_spec.search["pruner"] != "freeze_thaw":
        return None
    ranks = _ranks(study_spec.space, study_spec.constants)
    stored = study_spec.reliability.checkpoints is not None
    return FrozenDisk(
        most_gib=study_spec.reliability.frozen_gib,
        each_gib=(study_spec.frozen_gib(ranks[0]), study_spec.frozen_gib(ranks[1])),
        trials=study_spec.trials,
        free_gib=None if stored else _free_gib(Path(study_spec.run_folder)),
    )


def _ranks(space: SearchSpace, constants: Mapping[str, Any]) -> tuple[int, int]:
    if "lora_r" not in space:
        return int(constants["lora_r"]), int(constants["lora_r"])
    dimension = space["lora_r"]
    values = [int(value) for value in dimension.choices or dimension.bounds()]
    return min(values), max(values)


def _free_gib(folder: Path) -> float | None:
    there = next((each for each in (folder, *folder.parents) if each.is_dir()), None)
    return None if there is None else shutil.disk_usage(there).free / GIB


def _gib(value: float) -> str:
    return "less than 0.01" if 0 < value < 0.01 else number(value)
