"""What a confirm study is to run: every arm on one new seed after the other, until it is clear."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from results.verdict.statistics import MARGIN, Arm


@dataclass(frozen=True, kw_only=True)
class ReplicatePlan:
    """Arms times seeds, seed by seed, so that the arms of one seed share a pack."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    """As many as the budget pays for; a longer list begins with the shorter one."""
    margin: float = MARGIN
    stops_early: bool = True
    """Whether it ends as soon as every arm has its relation to the best."""

    @property
    def size(self) -> int:
        """Runs of the whole plan."""
        return len(self.arms) * len(self.seeds)

    def run(self, index: int) -> tuple[Arm, int]:
        """Arm and seed of one run, counted from 0."""
        round_, place = divmod(index, len(self.arms))
        return self.arms[place], self.seeds[round_]

    def described(self) -> list[dict[str, Any]]:
        """The arms as the study keeps them."""
        return [arm.to_dict() for arm in self.arms]


def new_seeds(seed: int, count: int) -> tuple[int, ...]:
    """`count` seeds that are neither the sweep's own nor twice the same, the same on every call."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        digest = hashlib.sha256(f"{seed}/confirm/{number}".encode()).digest()
        number += 1
        drawn = int.from_bytes(digest[:4], "little")
        if drawn != seed and drawn not in found:
            found.append(drawn)
    return tuple(found)
