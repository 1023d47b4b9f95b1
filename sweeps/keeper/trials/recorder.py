"""Writes reports and the ends of trials: into the trial's folder first, then into the study."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from files_and_text.atomic_files import atomic_write, atomic_write_json
from files_and_text.trial_paths import ERROR_FILE, REPORTS_FILE, RESULT_FILE, trial_folder
from lora_runner.metric.scores import objective_of
from lora_runner.protocol import COMPLETE, DIVERGED, FAILED, OUT_OF_MEMORY, PRUNED, SeatReport
from results.stored_trials import AT_REST, ENDED, FROZEN, MEASURED, STAYS, is_replicate, rank, search_trials
from sweeps.artifacts.checkpoint_store import CheckpointCleaner
from sweeps.artifacts.trial_folder import (
    append_line,
    remove_adapter,
    remove_checkpoint,
    write_record_losses,
)
from sweeps.keeper.trials.seats import stays_until_now
from sweeps.keeper.trials.stop_decision import end_text
from sweeps.plan.specs import StudySpec
from sweeps.storage.optuna_private import trial_id_of
from sweeps.storage.outages import is_outage
from sweeps.study.read_status import RUN_SECONDS, is_default
from sweeps.study.study import COUNTED_STATES, ENDED_STATES, cached_storage_of, set_user_attrs

_STATES = {
    COMPLETE: TrialState.COMPLETE,
    # PRUNED, not FAIL: samplers learn from pruned trials and ignore failed ones.
    PRUNED: TrialState.PRUNED,
    DIVERGED: TrialState.PRUNED,
    OUT_OF_MEMORY: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}


_END_ATTRIBUTES = (
    *("outcome", "stop_reason", "signs", "eval_loss", "train_loss", "num_tokens", "tokens_per_second"),
    *("peak_memory_gib", "wall_seconds", "generations", "adapter_sha256", "device", "num_threads"),
    "compute_path",
)
"""Fields of a trial's last report that become its user attributes."""


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What the study held when this run of the sweep started."""

    seconds_ago: float
    num_finished: int
    num_failed: int
    is_new: bool
    """Whether this keeper is the run's first."""
    ran_before: float = 0.0
    """Seconds in which earlier runs of the sweep ran."""


class Recorder:
    """Writes to one study and its run folder."""

    def __init__(
        self,
        study_spec: StudySpec,
        study: optuna.Study,
        note: Callable[[str], None],
        cleaner: CheckpointCleaner | None = None,
    ) -> None:
        """`cleaner` removes ended trials' checkpoints from a checkpoint store, if there is one."""
        self.study_spec = study_spec
        self.study = study
        self.folder = Path(study_spec.run_folder)
        self._note = note
        self._cleaner = cleaner
        self._with_adapter: set[int] | None = None
        """Complete trials that have kept their adapters; None before the first look."""

    def describe_study(self) -> None:
        """Record what a new study is about."""
        self.study.set_user_attr("metric", objective_of(self.study_spec.metric))
        self.study.set_user_attr("space", self.study_spec.space.to_dict())
        self.study.set_user_attr("guidelines", self.study_spec.guidelines)
        self.study.set_user_attr("context", self.study_spec.context)
        self.study.set_user_attr("versions", self.study_spec.versions)

    def start_run(self, run: str) -> RunStart:
        """When this run started and what the study held then.

        Kept in the study, so that a restarted keeper goes on counting towards the run's limits.
        """
        began = self.study.user_attrs.get("run_began") or {}
        is_new = began.get("run") != run
        if is_new:
            finished = len(search_trials(self.study, COUNTED_STATES))
            failed = len(search_trials(self.study, (TrialState.FAIL,)))
            ran = float(self.study.user_attrs.get(RUN_SECONDS) or 0.0)
            began = {"run": run, "at": time.time(), "finished": finished, "failed": failed, "ran": ran}
            self.study.set_user_attr("run_began", began)
        return RunStart(
            seconds_ago=max(0.0, time.time() - began["at"]),
            num_finished=int(began["finished"]),
            num_failed=int(began.get("failed", 0)),
            is_new=is_new,
            ran_before=float(began.get("ran", 0.0)),
        )

    def write_report(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Append a report to the trial's folder; a final one is also written as the trial's result."""
        folder = self.folder / trial_folder(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        values = report.to_dict() | {"config_hash": trial.user_attrs["config_hash"]}
        append_line(folder / REPORTS_FILE, json.dumps(values))
        if report.error is not None:
            atomic_write(folder / ERROR_FILE, report.error)
        if report.record_losses is not None:
            write_record_losses(folder, report.record_losses)
        if report.is_end:
            atomic_write_json(folder / RESULT_FILE, values)

    @contextmanager
    def keep_reports_in_outage(self, reports: Sequence[tuple[FrozenTrial, SeatReport]]) -> Iterator[None]:
        """Write reports to the trials' folders if the storage is away when the block runs."""
        try:
            yield
        except Exception as error:
            if is_outage(error):
                for trial, report in reports:
                    self.write_report(trial, report)
            raise

    def record(self, reports: Iterable[tuple[FrozenTrial, SeatReport]]) -> None:
        """Add the intermediate values of new reports to the study, in one statement.

        With a metric, an attribute of the trial holds both the loss and the metric of each report.
        """
        new = [
            (trial, report) for trial, report in reports if report.percent not in trial.intermediate_values
        ]
        for trial, report in new if self.study_spec.metric is not None else []:
            both = {"eval_loss": report.eval_loss, "metric": report.metric}
            if report.eval_loss is not None:
                set_user_attrs(self.study, trial, **{f"{MEASURED}{report.percent}": both})
        cached_storage_of(self.study).add_intermediate_values(
            (trial_id_of(trial), report.percent, value)
            for trial, report in new
            if (value := self._objective(report)) is not None
        )

    def _objective(self, report: SeatReport) -> float | None:
        """What the study minimizes: the loss, or the metric's cost if the report measured it."""
        metric = self.study_spec.metric
        if metric is None or not metric.objective:
            return report.eval_loss
        return None if report.metric is None else metric.cost(report.metric)

    def record_end(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Record how a trial ended, and tell the study. Every trial that ran ends here."""
        outcome = report.outcome
        assert outcome is not None
        attributes = self._attributes(report)
        if "arm" in trial.user_attrs:
            # Intervals are looked at in this order; clocks of several machines may disagree about it.
            attributes[ENDED] = len(self.study.get_trials(deepcopy=False, states=ENDED_STATES))
        set_user_attrs(self.study, trial, **attributes)
        if outcome in (DIVERGED, OUT_OF_MEMORY) and self.study_spec.search["sampler"] == "tpe":
            # TPE would otherwise rank a trial that learned fast before it broke above others, by its last
            # value.
            Trial(self.study, trial_id_of(trial)).set_constraint("trainable", 1.0)
        value = self._objective(report) if outcome == COMPLETE else None
        self.study.tell(trial.number, value, state=_STATES[outcome])
        metric = None if self.study_spec.metric is None else self.study_spec.metric.name
        self._note(f"trial {trial.number}: {end_text(report, metric)}")

    def _attributes(self, report: SeatReport) -> dict[str, Any]:
        values = report.to_dict()
        attributes = {name: values[name] for name in _END_ATTRIBUTES} | {"num_steps": report.step}
        return attributes if self.study_spec.metric is None else attributes | {"metric": report.metric}

    def record_frozen(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Record that a trial was stopped with this report, without a seat and without an end."""
        attributes = self._attributes(report) | {"outcome": FROZEN, FROZEN: report.percent, "run": None}
        set_user_attrs(self.study, trial, **attributes, **{STAYS: stays_until_now(trial)})
        self._note(f"trial {trial.number}: frozen {report.stop_reason}")

    def record_given_up(self, trial: FrozenTrial, why: str) -> str:
        """Record that a frozen trial is pruned for good, as of its last report; returns the whole reason."""
        reason = f"{trial.user_attrs.get('stop_reason')}; was frozen, pruned for good: {why}"
        set_user_attrs(self.study, trial, outcome=PRUNED, stop_reason=reason, **{FROZEN: None, AT_REST: None})
        self.study.tell(trial.number, state=TrialState.PRUNED)
        self._note(f"trial {trial.number}: pruned {reason}")
        return reason

    def record_rest(self, trial: FrozenTrial, *, rests: bool) -> None:
        """Record that the sweep has ended with this trial frozen, or that it goes on."""
        set_user_attrs(self.study, trial, **{AT_REST: True if rests else None})

    def remove_leftovers(self, trials: Iterable[FrozenTrial]) -> None:
        """Remove the checkpoints of `trials` that have ended, and the adapters of all but the best trials.

        Call this only after the transaction that ended them: from then on no trial is resumed from these
        files.
        """
        known = self.study.get_trials(deepcopy=False)
        ended = [trial.number for trial in trials if known[trial.number].state in ENDED_STATES]
        for number in ended:
            remove_checkpoint(self.folder, number)
        if not ended:
            return
        if self._cleaner is not None:
            self._cleaner.remove(ended)
        # A trial that has dropped out of the best never returns: look only at those kept before and the new
        # ones.
        numbers = range(len(known)) if self._with_adapter is None else sorted({*self._with_adapter, *ended})
        complete = [known[n] for n in numbers if known[n].state == TrialState.COMPLETE]
        kept = set(adapters_to_keep(complete, self.study_spec.reliability.keep_adapters))
        for trial in complete:
            if trial.number not in kept:
                remove_adapter(self.folder, trial.number)
        self._with_adapter = kept


def adapters_to_keep(trials: Sequence[FrozenTrial], count: int) -> list[int]:
    """Numbers of the `count` best complete trials of the search, and of the guideline default."""
    complete = [
        t for t in trials if t.state == TrialState.COMPLETE and t.value is not None and not is_replicate(t)
    ]
    best = sorted(complete, key=rank)[:count]
    return sorted({t.number for t in (*best, *filter(is_default, complete))})
