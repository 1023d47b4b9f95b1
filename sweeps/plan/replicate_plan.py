"""The plan of a confirm study: every arm on one new seed after another, until the answer is clear."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from results.comparison.arms import Arm
from results.comparison.constants import MARGIN


@dataclass(frozen=True, kw_only=True)
class ReplicatePlan:
    """Arms times seeds, seed by seed, so that the arms of one seed share a pack."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    """As many as the budget allows; with a larger budget, more seeds are appended."""
    margin: float = MARGIN
    stops_early: bool = True
    """Whether to end as soon as the answer is clear."""

    @property
    def size(self) -> int:
        """Runs of the whole plan."""
        return len(self.arms) * len(self.seeds)

    def run(self, index: int) -> tuple[Arm, int]:
        """Arm and seed of one run, counted from 0."""
        seed_index, arm_index = divmod(index, len(self.arms))
        return self.arms[arm_index], self.seeds[seed_index]

    def described(self) -> list[dict[str, Any]]:
        """The arms as stored in the study."""
        return [arm.to_dict() for arm in self.arms]


def new_seeds(seed: int, count: int) -> tuple[int, ...]:
    """`count` distinct seeds other than the sweep's own, the same on every call."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        digest = hashlib.sha256(f"{seed}/confirm/{number}".encode()).digest()
        number += 1
        drawn = int.from_bytes(digest[:4], "little")
        if drawn != seed and drawn not in found:
            found.append(drawn)
    return tuple(found)
