"""Reads the record losses of runs, and compares them over other evaluation records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from results.comparison.arms import Arm, Replicate, runs_by_arm
from results.comparison.records import RecordComparison, compare_records
from results.record_losses import RecordLosses, read_record_losses
from results.sweep_result import TrialResult


@dataclass(frozen=True, kw_only=True)
class RecordComparisons:
    """Empty where the runs kept no losses of single records."""

    default: RecordComparison | None = None
    """The guideline default against the best: of the seeds both ran on, else of the sweep's own runs."""
    arms: Mapping[str, RecordComparison] = field(default_factory=dict)
    """Arm -> the arm against the reference."""


class OverRecords:
    """The record losses in one run folder; `runs` are those of its arms."""

    def __init__(self, run_folder: Path, runs: Sequence[Replicate], *, margin: float) -> None:
        self._run_folder, self._margin = run_folder, margin
        self._runs = runs_by_arm(runs)

    def of_arms(self, arm: Arm, other: Arm) -> RecordComparison | None:
        """`arm` against `other`, averaged over the seeds on which both finished."""
        ours, theirs = self._runs.get(arm.name, {}), self._runs.get(other.name, {})
        pairs = [
            (
                self._read(ours[seed].folder, ours[seed].loss),
                self._read(theirs[seed].folder, theirs[seed].loss),
            )
            for seed in sorted(ours.keys() & theirs.keys())
            if ours[seed].loss is not None and theirs[seed].loss is not None
        ]
        return self._compared(pairs, seeds=len(pairs))

    def of_trials(self, trial: TrialResult, other: TrialResult) -> RecordComparison | None:
        """One run of each."""
        pair = (self._read(trial.folder, trial.eval_loss), self._read(other.folder, other.eval_loss))
        return self._compared([pair], seeds=0)

    def _compared(
        self, pairs: Sequence[tuple[RecordLosses | None, RecordLosses | None]], *, seeds: int
    ) -> RecordComparison | None:
        """None where a run lacks its records: the average would be over other seeds than the loss."""
        whole = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        if len(whole) < len(pairs):
            return None
        ours, theirs = [pair[0] for pair in whole], [pair[1] for pair in whole]
        return compare_records(ours, theirs, seeds=seeds, margin=self._margin)

    def _read(self, folder: str, loss: float | None) -> RecordLosses | None:
        return read_record_losses(self._run_folder / folder, loss) if folder else None
