"""The reports of one pack: recorded together, then decided on one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial

from lora_runner.protocol import FAILED, PUT_BACK, SeatReport
from sweeps.keeper.trials.open_study import OpenStudy
from sweeps.keeper.trials.seats import current_reports, frozen_before, frozen_trials
from sweeps.keeper.worker_registry import WorkerRegistry
from sweeps.progress.live_progress import LiveProgress


@dataclass
class PackDecision:
    """What becomes of the trials of a pack."""

    reported: list[FrozenTrial]
    """Those whose reports count."""
    leave: list[int]
    """Numbers of trials that leave their seats."""
    freeze: list[int]
    """Numbers of trials that leave their seats after a checkpoint."""
    freed: list[int] = field(default_factory=list)
    """Seats that become free by it."""
    dropped: list[FrozenTrial] = field(default_factory=list)
    """Runs on new seeds that are not waited for."""
    told: list[tuple[FrozenTrial, SeatReport]] = field(default_factory=list)
    """Reports that callbacks and trackers hear of."""
    any_ended: bool = False

    def seats_to_empty(self, study: optuna.Study) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """`leave` and `freeze` once seats have been filled: a frozen trial may have ended meanwhile."""
        still = {trial.number for trial in frozen_trials(study)}
        ended = [number for number in self.freeze if number not in still]
        return (*self.leave, *ended), tuple(number for number in self.freeze if number in still)


def decide_on_pack(
    opened: OpenStudy,
    workers: WorkerRegistry,
    progress: LiveProgress,
    worker: int,
    reports: Sequence[SeatReport],
    *,
    is_ending: Callable[[], bool],
) -> PackDecision:
    """Record a pack's reports and decide which of its trials go on. Only inside a transaction.

    All values are in the study before the first decision, so that every trial is compared with its
    neighbours. `is_ending`: whether no more trials are handed out.
    """
    study = opened.study
    current = current_reports(study, reports, opened.retry_queue.numbers)
    known = {report.number for _, report in current}
    freeze = frozen_before(study, reports)
    gone = [r.number for r in reports if r.number not in {*known, *freeze} and r.outcome is None]
    decision = PackDecision([trial for trial, _ in current], leave=gone, freeze=freeze)
    new = {r.number for t, r in current if r.percent not in t.intermediate_values or r.is_end}
    opened.recorder.record(current)
    for trial, report in current:
        if report.number in new:
            opened.retry_queue.reset_losses(trial)
            workers.made_progress(worker)
        if report.outcome == PUT_BACK and not trial.user_attrs.get("put_back"):
            opened.retry_queue.put_back(trial, report.stop_reason)
            progress.worse(f"trial {trial.number} was put back")
            continue
        last = opened.final_report(trial, report)
        freezes = last is not None and opened.freezer.takes(last)
        if last is not None or report.number in new:
            decision.told.append((trial, report if freezes else last or report))
        if last is None:
            continue
        opened.end(trial, last, worker)
        decision.any_ended = True
        if last.outcome == FAILED:
            progress.worse(f"trial {trial.number} failed")
        if report.outcome is None:
            (decision.freeze if freezes else decision.leave).append(report.number)
            decision.freed.append(int(trial.user_attrs["seat"]))
    opened.freezer.give_up_surplus()
    if not opened.search_goes_on(is_ending):
        decision.dropped = opened.tail.drop(worker)
        decision.freed += [int(run.user_attrs["seat"]) for run in decision.dropped]
        decision.leave += [run.number for run in decision.dropped]
    return decision
