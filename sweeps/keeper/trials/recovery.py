"""Trials that have lost their worker: ended by what their folders hold, or queued for another seat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial

from lora_runner.protocol import SeatReport
from sweeps.artifacts.trial_folder import read_reports, read_result
from sweeps.keeper.trials.recorder import Recorder
from sweeps.keeper.trials.retry_queue import RetryQueue


def recover_trials(
    trials: Sequence[FrozenTrial],
    recorder: Recorder,
    retry_queue: RetryQueue,
    decide: Callable[[FrozenTrial, SeatReport], SeatReport | None],
    end: Callable[[FrozenTrial, SeatReport], None],
    note: Callable[[str], None],
    *,
    lost_because: str | None = None,
) -> int:
    """Record what the folders of `trials` hold that the study lacks, and queue those that have not ended.

    Missing reports are recorded and decided on now, since a trial that is resumed from a later checkpoint
    does not repeat them; `decide` is the stop decision, and `end` records what it stops. `lost_because`
    counts a loss against each trial; None counts none. Returns how many trials failed because they lost too
    many workers.
    """
    ended = set()
    missing = [(trial, report) for trial in trials for report in read_reports(recorder.folder, trial)]
    missing = [
        (trial, report) for trial, report in missing if report.percent not in trial.intermediate_values
    ]
    # All values at one percent before the first decision there, as in a pack's report.
    for percent in sorted({report.percent for _, report in missing}):
        at_percent = [(t, r) for t, r in missing if r.percent == percent and t.number not in ended]
        recorder.record(at_percent)
        for trial, report in at_percent:
            if (last := decide(trial, report)) is not None:
                end(trial, last)
                ended.add(trial.number)
    num_failed = 0
    for trial in trials:
        if trial.number in ended:
            continue
        if (result := read_result(recorder.folder, trial)) is not None:
            note(f"trial {trial.number}: result found on disk")
            recorder.record([(recorder.study.get_trials(deepcopy=False)[trial.number], result)])
            end(trial, decide(trial, result) or result)
        elif lost_because is None or retry_queue.record_loss(
            trial, alone=len(trials) == 1, reason=lost_because
        ):
            retry_queue.add(trial)
        else:
            num_failed += 1
    return num_failed
