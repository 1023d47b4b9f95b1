"""What a run of a sweep does first: it makes the study complete, and takes up what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.keeper.trials.open_study import OpenStudy
from sweeps.keeper.trials.recorder import RunStart
from sweeps.study.home_folder import record_home


def begin_run(opened: OpenStudy, run: str, note: Callable[[str], None], *, is_new_study: bool) -> RunStart:
    """Record the run, and what the trials' folders hold that the study lacks; only inside a transaction.

    Also for a keeper that was restarted in the middle of a run, whose trials stay on their seats.
    """
    source, study_spec = opened.source, opened.study_spec
    if is_new_study:
        opened.recorder.describe_study()
    source.enqueue_first_trials()
    record_home(opened.study, opened.recorder.folder)
    start = opened.recorder.start_run(run)
    source.num_failed_before = start.num_failed
    source.requeue_prefetched()
    if start.is_new:
        source.retry_failed()
        if (warning := study_spec.pruning_warning) is not None:
            note(f"warning: {warning}")
    opened.recover(opened.interrupted())
    if not opened.freezer.is_on:  # the sweep file asks for another pruner than before
        opened.freezer.end_all()
    return start
