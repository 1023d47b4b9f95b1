"""The plan of a confirm study: every arm on one new seed after another, until it is decided."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.allocation.row_needs import RowNeeds
from results.comparison.arms import Arm, reference
from results.comparison.constants import MARGIN, MOST_SEEDS


@dataclass(frozen=True, kw_only=True)
class KnownRun:
    """A run that the sweep made in a seat idle at its end, and that the plan need not make again."""

    arm: str
    seed: int
    eval_loss: float
    """Nats per token at the full budget."""
    metric: float | None
    config: Mapping[str, Any]
    folder: str
    """In the sweep's run folder."""


@dataclass(frozen=True, kw_only=True)
class ReplicatePlan:
    """Arms and seeds, seed by seed, so that the arms of one seed share a pack.

    An arm that is decided needs no further seed; its runs go to the others, up to the last seed.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    """The most that any arm may use; with a larger budget, more are appended."""
    runs: int | None = None
    """Runs at most, of all arms together; None for every arm on every seed."""
    most_seeds: int = MOST_SEEDS
    """Seeds per arm that the thresholds are designed for. A study keeps that of its first plan."""
    margin: float = MARGIN
    stops_early: bool = True
    """Whether an arm ends once it is decided."""
    known: tuple[KnownRun, ...] = ()
    """In the order in which they ended."""
    needs: RowNeeds | None = None
    """What the guideline rows wait for; None where all arms are to be decided alike."""

    @property
    def size(self) -> int:
        """Runs at most."""
        every = len(self.arms) * len(self.seeds)
        return every if self.runs is None else min(self.runs, every)

    def next_run(
        self,
        taken: Collection[tuple[str, int]],
        undecided: Collection[str],
        wanted: Sequence[Mapping[str, int]] = (),
    ) -> tuple[Arm, int] | None:
        """The next arm and its seed; None when there is none.

        `wanted` are arms with the number of seeds that each should have, those to be served first in front.
        `taken` are arms' names with the seeds that they ran on or will. The reference runs on every seed
        that an undecided arm runs on; where every arm has ended, or for the last run of a budget, it would be
        alone on its seed and is left out.
        """
        left = self.size - len(taken)
        if left < 1:
            return None
        if not self.stops_early:
            every = ((arm, seed) for seed in self.seeds for arm in self.arms)
            return next((run for run in every if (run[0].name, run[1]) not in taken), None)
        best = reference(self.arms)
        arms = [arm for arm in self.arms if arm is best or arm.name in undecided]
        if len(arms) < 2:
            return None
        for seeds in wanted:
            if (run := self._towards(seeds, taken, left)) is not None:
                return run
        for seed in self.seeds:
            missing = [arm for arm in arms if (arm.name, seed) not in taken]
            is_alone = left == 1 and best in missing and len(missing) == len(arms)
            if missing and not is_alone:
                return missing[0], seed
        return None

    def _towards(
        self, wanted: Mapping[str, int], taken: Collection[tuple[str, int]], left: int
    ) -> tuple[Arm, int] | None:
        """The next run of the arm that has the fewest, each taking the seeds in their order."""
        best = reference(self.arms)
        count = {name: sum(arm == name for arm, _ in taken) for name in wanted}
        short = [arm for arm in self.arms if count.get(arm.name, 0) < wanted.get(arm.name, 0)]
        for arm in sorted(short, key=lambda arm: count[arm.name]):
            seed = next((seed for seed in self.seeds if (arm.name, seed) not in taken), None)
            if seed is None:
                continue
            if (best.name, seed) in taken:
                return arm, seed
            if left > 1:
                return best, seed
        return None

    def described(self) -> list[dict[str, Any]]:
        """The arms as stored in the study."""
        return [arm.to_dict() for arm in self.arms]


def new_seeds(seed: int, count: int) -> tuple[int, ...]:
    """`count` distinct seeds other than the sweep's own, the same on every call."""
    found: dict[int, None] = {}  # in their order
    number = 0
    while len(found) < count:
        digest = hashlib.sha256(f"{seed}/confirm/{number}".encode()).digest()
        number += 1
        drawn = int.from_bytes(digest[:4], "little")
        if drawn != seed:
            found[drawn] = None
    return tuple(found)
