"""Trials on the seats of a pack: started, trained until a report is due, ended.

A session does not decide about trials. It is given assignments, trains until a seat has something to report,
and is told which trials go on.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

import torch

from lora_runner.base.load_model import vocabulary_size
from lora_runner.data import BatchPlan, DataBundle
from lora_runner.errors import Fault, first_line, is_device_error, is_disk_trouble
from lora_runner.memory.planned_device import unused_gpu, used_devices
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat_by_seat import free_memory
from lora_runner.protocol import (
    OUT_OF_MEMORY,
    PUT_BACK,
    Assignment,
    BaseSamples,
    ComputeRecord,
    SeatReport,
    SessionOptions,
    TrialProgress,
)
from lora_runner.running_trial import RunningTrial
from lora_runner.stability import StabilityWatch
from lora_runner.trial_files import TrialFiles
from lora_runner.trial_reports import Reporter, device_name, failed


class Session:
    """Trials on the seats of one pack.

    Raises ModelError when the untouched base has no finite loss on the evaluation set.
    """

    def __init__(self, pack: Pack, data: DataBundle, options: SessionOptions, *, num_seats: int) -> None:
        self.pack = pack
        self.data = data
        self.options = options
        self.seats: list[RunningTrial | None] = [None] * num_seats
        self._closed: set[int] = set()
        """Seats that take no more trials, because memory ran out."""
        self.heartbeat: Callable[[], None] = lambda: None
        """Called after each piece of work; for a watchdog."""
        self.num_tokens = 0
        """Real training tokens of all trials since the session began."""
        _, self._uncaptured = pack.captures()
        """Why passes are not captured as graphs, as far as it has been told."""
        self.files = TrialFiles(options.disk_patience_seconds)
        self.reporter = Reporter(pack, data, options, self.files, lambda: self.heartbeat())
        self.base_eval_loss = self.reporter.base_eval_loss

    def measure_base(self) -> float | None:
        """The metric of the untouched base; None, with a note, where its answers or their scoring raised."""
        return self.reporter.measure_base()

    @property
    def base_samples(self) -> BaseSamples | None:
        """What the untouched base writes for the prompts of the trials' samples; None without samples."""
        return self.reporter.base_samples

    @property
    def base_weights(self) -> str | None:
        """Digest of the base's weights."""
        return self.pack.base.weights

    @property
    def compute_record(self) -> ComputeRecord:
        """How the passes are computed, and what decided it."""
        path, decision = self.pack.path, self.pack.machine.decision
        certificate = decision.certificate
        unused = unused_gpu()
        return ComputeRecord(
            device=device_name(self.pack.base.device),
            path=path.name,
            details=tuple(path.describe()),
            notes=(*decision.notes, *([] if unused is None else [unused])),
            devices=used_devices(self.pack.base.device, spread=self.pack.base.spec.device_map is not None),
            host=socket.gethostname(),
            certificate_name=None if certificate is None else certificate.file_name,
            certificate=None if certificate is None else certificate.to_dict(),
        )

    # --- seats ----------------------------------------------------------------------------------------

    @property
    def free_seats(self) -> list[int]:
        """Indices of seats without a trial."""
        return [i for i, trial in enumerate(self.seats) if trial is None and i not in self._closed]

    @property
    def num_seats(self) -> int:
        """Seats that take trials: fewer than at the start once memory has run out."""
        return len(self.seats) - len(self._closed)

    @property
    def trials(self) -> list[RunningTrial]:
        """The trials on the seats."""
        return [trial for trial in self.seats if trial is not None]

    def start_trial(self, index: int, assignment: Assignment) -> None:
        """Start a trial on a free seat, from its checkpoint when its folder has one.

        A checkpoint that cannot be used (damaged, or of another configuration) means a fresh start, since
        every trial is reproducible from its configuration. Raises TrialConfigError or torch.OutOfMemoryError
        when the trial cannot start; the seat is then still free.
        """
        if self.seats[index] is not None:
            raise ValueError(f"seat {index} is taken, trial {assignment.number} cannot start there")
        config = assignment.config
        trial = RunningTrial(
            assignment=assignment,
            seat=self.pack.new_seat(config, seats_to_come=len(self.free_seats) - 1),
            plan=BatchPlan(
                train=self.data.train, batch_size=config.per_device_train_batch_size, seed=config.seed
            ),
            watch=StabilityWatch(self.base_eval_loss, self.reporter.base_repetition),
            report_steps=report_steps(config.max_steps, self.options.report_at),
        )
        self.files.restore(trial)
        self.seats[index] = trial

    def has_trial(self, number: int) -> bool:
        """Whether a trial is on one of the seats."""
        return any(trial.number == number for trial in self.trials)

    def remove(self, number: int) -> None:
        """Free the seat of a trial."""
        self.seats[self._index(number)] = None

    def save(self, number: int) -> None:
        """Checkpoint a running trial now; when the disk refuses it, the previous checkpoint remains."""
        trial = self.seats[self._index(number)]
        assert trial is not None
        trial.restart_window()
        self.files.checkpoint(trial)

    def _index(self, number: int) -> int:
        for index, trial in enumerate(self.seats):
            if trial is not None and trial.number == number:
                return index
        raise KeyError(f"trial {number} has no seat")

    def progress(self) -> list[TrialProgress]:
        """How far each trial is. Reads nothing from the device, so it delays nothing."""
        return [
            TrialProgress(
                number=trial.number,
                attempt=trial.assignment.attempt,
                step=trial.seat.step,
                max_steps=trial.seat.config.max_steps,
                num_tokens=trial.seat.num_tokens,
                train_loss=None if trial.last_stats is None else trial.last_stats.loss,
                checkpoint_step=trial.checkpoint_step,
            )
            for trial in self.trials
        ]

    @property
    def checkpoint_seconds(self) -> float | None:
        """How long the last checkpoint of a trial took; None before the first."""
        return self.files.checkpoint_seconds

    @property
    def eval_tokens(self) -> int:
        """Tokens of one evaluation of a trial."""
        return self.data.eval.num_tokens

    def take_written(self) -> list[tuple[Assignment, str]]:
        """Folders of trials (checkpoint, adapter) written since the last call."""
        return self.files.take_written()

    def take_notes(self) -> list[str]:
        """Notes for the user since the last call."""
        _, uncaptured = self.pack.captures()
        if uncaptured != self._uncaptured:
            self._uncaptured = uncaptured
            if uncaptured:
                self.files.note_of_pack(f"passes are no longer launched as graphs: {uncaptured}")
        return self.files.take_notes()

    # --- training -------------------------------------------------------------------------------------

    def advance(self, max_seconds: float = 10.0) -> list[SeatReport]:
        """Train all seats until at least one has something to report, or the time is up.

        Trials that ended by themselves (full budget, diverged) or did not fit have left their seats when this
        returns.
        """
        # Not at the report itself: after a crash, a checkpoint written before its report was delivered would
        # resume behind it, and the report would be lost. Nor do trials stopped for it need one.
        for number in [trial.number for trial in self.trials if trial.wants_checkpoint]:
            self.save(number)
        deadline = time.monotonic() + max_seconds
        reports: list[SeatReport] = []
        while self.trials and not reports and time.monotonic() < deadline:
            reports = self._step()
            self.heartbeat()
        return reports

    def _step(self) -> list[SeatReport]:
        """One micro-batch of every trial, and the reports that are then due."""
        started = time.monotonic()
        steps = {trial.number: trial.seat.step for trial in self.trials}
        out_of_memory, failure = None, None
        device = self.pack.base.device
        try:
            self.pack.train_step({trial.seat: trial.next_micro_batch(device) for trial in self.trials})
        except torch.OutOfMemoryError as error:
            out_of_memory = first_line(error)  # only text: the traceback holds the step's activations
        except Exception as error:
            if is_device_error(error) or is_disk_trouble(error):
                raise
            if any(trial.seat.step != steps[trial.number] for trial in self.trials):
                raise
            failure = error
        elapsed = time.monotonic() - started
        reports = [] if failure is None else self._step_one_by_one(failure)
        if out_of_memory is not None and self._release_memory():
            out_of_memory = None
        if out_of_memory is not None:
            assignment, report = self._remove_largest()
            reports = [self.report_out_of_memory(assignment, report, out_of_memory, alone=not self.trials)]
        return reports + self._report(self._due(steps, elapsed))

    def _due(self, steps: dict[int, int], elapsed: float) -> list[RunningTrial]:
        """Account for a step that took `elapsed` seconds; trials that have diverged or reached a report.

        `steps` are the trials' optimizer steps before it.
        """
        due: list[RunningTrial] = []
        for trial in self.trials:
            trial.wall_seconds += elapsed
            update = trial.seat.last_update
            if update is None or update.step == steps[trial.number]:
                continue
            trial.window = []
            self.num_tokens += update.num_tokens
            trial.unread.append(update)
            reports_now = update.step in trial.report_steps
            # Reading the newest loss now would leave the device idle, so it is read after the next step: a
            # rule that depends on the trial's own steps alone.
            trial.read(keep=0 if reports_now else 1)
            if trial.watch.diverged or reports_now:
                due.append(trial)
        return due

    def _report(self, due: list[RunningTrial]) -> list[SeatReport]:
        """Evaluate trials that are due; those that have ended leave their seats."""
        reports = self.reporter.report(due)
        for trial, report in zip(due, reports, strict=True):
            if report.outcome is not None:
                self.remove(trial.number)
            elif time.monotonic() - trial.checkpointed_at >= self.options.checkpoint_seconds:
                trial.wants_checkpoint = True
        return reports

    # --- when a step fails ----------------------------------------------------------------------------

    def _step_one_by_one(self, failure: Exception) -> list[SeatReport]:
        """Repeat a failed step trial by trial, which gives the same numbers, to find the trial that fails.

        A trial that fails alone has ended. Where each of several fails no trial is to blame, and `failure` is
        raised.
        """
        faults: list[tuple[RunningTrial, Fault]] = []
        for trial in self.trials:
            trial.restart_window()
        for trial in self.trials:
            try:
                self.pack.train_step({trial.seat: trial.next_micro_batch(self.pack.base.device)})
            except Exception as error:
                if is_device_error(error) or is_disk_trouble(error):
                    raise
                faults.append((trial, Fault.of(error)))
        if len(faults) == len(self.trials) > 1:
            raise failure
        reports = []
        for trial, fault in faults:
            reports.append(failed(self.reporter.seat_report(trial), fault))
            self.remove(trial.number)
        return reports

    def _release_memory(self) -> bool:
        """Whether memory of seats that are free could be released; all windows are then computed again."""
        if not self.pack.release_memory():
            return False
        for trial in self.trials:
            trial.restart_window()
        return True

    def _remove_largest(self) -> tuple[Assignment, SeatReport]:
        """Remove the trial that needs the most memory; the others compute their windows again.

        A method of its own, so that no variable holds the seat when its memory is to be freed.
        """
        vocabulary = vocabulary_size(self.pack.model)
        largest = max(self.trials, key=lambda trial: (trial.memory_weight(vocabulary), trial.number))
        for trial in self.trials:
            trial.restart_window()
        self.remove(largest.number)
        return largest.assignment, self.reporter.seat_report(largest)

    def report_out_of_memory(
        self, assignment: Assignment, report: SeatReport, reason: str, *, alone: bool
    ) -> SeatReport:
        """The last report of a trial that left its seat, or got none, because memory ran out.

        It may be tried once more beside fewer neighbours. So the pack gives up this seat for good, and any
        other that is free: as many trials as now would not fit another time. A trial that was `alone` has
        ended, and no seat is given up for it; a trial that was put back before has ended too.
        """
        if alone:
            reason = f"out of memory: {reason}"
            outcome = OUT_OF_MEMORY
        else:
            self._closed.update(self.free_seats)
            free_memory()
            self.pack.release_memory()
            self.pack.resume_capturing()
            outcome = OUT_OF_MEMORY if assignment.put_back else PUT_BACK
            again = " again" if assignment.put_back else ""
            reason = f"out of memory{again}: {reason}; the pack goes on with {self.num_seats} seats"
        free_memory()
        return report.ended(outcome, reason)


def report_steps(max_steps: int, percents: Sequence[int]) -> dict[int, int]:
    """Optimizer step -> percent of the budget; where several fall on one step, the last one wins."""
    return {max(1, round(max_steps * percent / 100)): percent for percent in percents}
