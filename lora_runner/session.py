"""Running trials on a pack: data, evaluations at fixed shares of the budget, stability, checkpoints, ends.

A session knows nothing of who decides about trials. It is handed assignments, trains until a seat has
something to report, and is told which of them go on.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from lora_runner.base.load_model import vocabulary_size
from lora_runner.data import BatchPlan, DataBundle, TokenizedExample, TokenizedSet
from lora_runner.errors import Fault, ModelError, first_line, is_device_error, is_disk_trouble
from lora_runner.layout.pack_layout import Block
from lora_runner.metric.measure import make_evaluator
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from lora_runner.pack.seat_by_seat import for_each_seat, free_memory
from lora_runner.protocol import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    PUT_BACK,
    Assignment,
    SeatReport,
    SessionOptions,
)
from lora_runner.running_trial import RunningTrial
from lora_runner.stability import StabilityWatch, repetition
from lora_runner.trial_files import TrialFiles


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
        """Seats that are filled no more, because memory ran out."""
        self.heartbeat: Callable[[], None] = lambda: None
        """Called whenever something has been done; a watchdog's."""
        self.files = TrialFiles(options.disk_patience_seconds)
        self.num_tokens = 0
        """Real training tokens of all trials since the session began."""
        self._eval_blocks = self._make_eval_blocks(data.eval)
        self.base_eval_loss = pack.evaluate([None], self._eval_blocks)[0]
        if not math.isfinite(self.base_eval_loss):
            raise ModelError(
                f"the untouched base {pack.base.spec.model!r} has evaluation loss {self.base_eval_loss}: its "
                f"weights are damaged, or {pack.base.compute_dtype} is too narrow for them"
            )
        self.base_repetition = repetition(self._sample([None])[0])
        self._evaluator = (
            None
            if options.metric is None
            else make_evaluator(pack, options.metric, data.eval_prompts, options.per_device_eval_batch_size)
        )

    def _make_eval_blocks(self, examples: TokenizedSet) -> list[Block]:
        # Sorted by length only so that alike ones attend together; the order changes no sum over tokens.
        ordered = sorted(examples.examples, key=lambda e: len(e.input_ids))
        size = self.options.per_device_eval_batch_size
        return [self._block(ordered[i : i + size]) for i in range(0, len(ordered), size)]

    def _block(self, examples: Sequence[TokenizedExample]) -> Block:
        return Block.of([(e.input_ids, e.labels) for e in examples], self.pack.base.device)

    def measure_base(self) -> float | None:
        """The metric of the untouched base; None, with a note, where its answers or their scoring raised."""
        if self._evaluator is None or self.options.metric is None:
            return None
        if self.options.metric.max_new_tokens and (reason := self.pack.generator.uncached_reason):
            self.files.note_of_base(f"answers cost a pass over the whole text for each token: {reason}")
        [value] = self._evaluator.measure([None])
        self.heartbeat()
        if isinstance(value, Fault):
            self.files.note_of_base(f"has no {self.options.metric.name} ({value.reason})")
            return None
        return value

    @property
    def base_weights(self) -> str | None:
        """Digest of the base's weights."""
        return self.pack.base.weights

    # --- seats ----------------------------------------------------------------------------------------------

    @property
    def free_seats(self) -> list[int]:
        """Indices of seats that wait for a trial."""
        return [i for i, running in enumerate(self.seats) if running is None and i not in self._closed]

    @property
    def num_seats(self) -> int:
        """Seats that take trials: fewer than in the beginning once memory has run out."""
        return len(self.seats) - len(self._closed)

    @property
    def trials(self) -> list[RunningTrial]:
        return [running for running in self.seats if running is not None]

    def start_trial(self, index: int, assignment: Assignment) -> None:
        """Seat a trial, from its checkpoint when its folder has one.

        A checkpoint that cannot be used (damaged, or of another configuration) means a fresh start, since
        every trial is reproducible from its configuration. Raises TrialConfigError or torch.OutOfMemoryError
        when the trial cannot be seated; the seat is then still free.
        """
        if self.seats[index] is not None:
            raise ValueError(f"seat {index} is taken, trial {assignment.number} cannot start there")
        config = assignment.config
        running = RunningTrial(
            assignment=assignment,
            seat=self.pack.new_seat(config),
            plan=BatchPlan(
                train=self.data.train, batch_size=config.per_device_train_batch_size, seed=config.seed
            ),
            watch=StabilityWatch(self.base_eval_loss, self.base_repetition),
            report_steps=report_steps(config.max_steps, self.options.report_at),
        )
        self.files.restore(running)
        self.seats[index] = running

    def has_trial(self, number: int) -> bool:
        """Whether a trial is on one of the seats."""
        return any(running.assignment.number == number for running in self.trials)

    def remove(self, number: int) -> None:
        """Free the seat of a trial that was stopped from outside."""
        self.seats[self._index(number)] = None

    def report_out_of_memory(
        self, assignment: Assignment, report: SeatReport, reason: str, *, alone: bool
    ) -> SeatReport:
        """What becomes of a trial that has left its seat, or got none, because memory ran out.

        It may be tried once more beside fewer neighbours. So the pack gives up this seat for good, and any
        other that is free: as many trials as now would not fit another time. A trial that was `alone` when it
        did not fit has ended, and no seat with it; so has one that was put back before.
        """
        if alone:
            reason = f"out of memory: {reason}"
            outcome = OUT_OF_MEMORY
        else:
            self._closed.update(self.free_seats)
            free_memory()
            self.pack.release_memory()
            outcome = OUT_OF_MEMORY if assignment.put_back else PUT_BACK
            again = " again" if assignment.put_back else ""
            reason = f"out of memory{again}: {reason}; the pack goes on with {self.num_seats} seats"
        free_memory()
        return report.ended(outcome, reason)

    def save(self, number: int) -> None:
        """Checkpoint a running trial now; when the disk does not take it, the one before it remains."""
        running = self.seats[self._index(number)]
        assert running is not None
        running.restart_window()
        self.files.checkpoint(running)

    def take_written(self) -> list[tuple[Assignment, str]]:
        """Folders of trials (checkpoint, adapter) written since this was asked last."""
        return self.files.take_written()

    def take_notes(self) -> list[str]:
        """What a person should hear of since this was asked last."""
        return self.files.take_notes()

    def _index(self, number: int) -> int:
        for index, running in enumerate(self.seats):
            if running is not None and running.assignment.number == number:
                return index
        raise KeyError(f"trial {number} has no seat")

    # --- training -------------------------------------------------------------------------------------------

    def advance(self, max_seconds: float = 10.0) -> list[SeatReport]:
        """Train all seats until at least one has something to report, or the time is up.

        Trials that ended by themselves (full budget, diverged) or did not fit have left their seats when this
        returns.
        """
        for running in self.trials:
            # Not at the report itself: a checkpoint that stood before its report was delivered would, after a
            # crash, go on behind it, and the report would be lost. Trials that were stopped for it need none,
            # either.
            if running.wants_checkpoint:
                self.save(running.assignment.number)
        deadline = time.monotonic() + max_seconds
        reports: list[SeatReport] = []
        while self.trials and not reports and time.monotonic() < deadline:
            reports = self._step()
            self.heartbeat()
        return reports

    def _step(self) -> list[SeatReport]:
        started = time.monotonic()
        steps = {running.assignment.number: running.seat.step for running in self.trials}
        lacking, failure = None, None
        try:
            self.pack.train_step({r.seat: self._next_micro_batch(r) for r in self.trials})
        except torch.OutOfMemoryError as error:
            lacking = first_line(error)  # and no more of it: its traceback holds the step's activations
        except Exception as error:
            if is_device_error(error) or is_disk_trouble(error):
                raise
            if any(r.seat.step != steps[r.assignment.number] for r in self.trials):
                raise
            failure = error
        elapsed = time.monotonic() - started
        reports = [] if failure is None else self._one_by_one(failure)
        if lacking is not None:
            assignment, report = self._largest_leaves()
            reports = [self.report_out_of_memory(assignment, report, lacking, alone=not self.trials)]
        due: list[RunningTrial] = []
        for running in self.trials:
            running.wall_seconds += elapsed
            update = running.seat.last_update
            if update is None or update.step == steps[running.assignment.number]:
                continue
            running.window = []
            self.num_tokens += update.num_tokens
            running.unread.append(update)
            reports_now = update.step in running.report_steps
            # The newest figures may still be on their way, and waiting for them would leave the device idle:
            # they are read after the next step, by a rule that depends on the trial's own steps alone.
            running.read(keep=0 if reports_now else 1)
            if running.watch.diverged or reports_now:
                due.append(running)
        return reports + self._report(due)

    def _one_by_one(self, failure: Exception) -> list[SeatReport]:
        """A step of the pack failed: take it again trial by trial, which gives the same, and see whose fault
        it was.

        A trial that fails alone has ended. Where all of several fail, it is no trial's fault: that is raised.
        """
        failed: list[tuple[RunningTrial, Fault]] = []
        for running in self.trials:
            running.restart_window()
        for running in self.trials:
            try:
                self.pack.train_step({running.seat: self._next_micro_batch(running)})
            except Exception as error:
                if is_device_error(error) or is_disk_trouble(error):
                    raise
                failed.append((running, Fault.of(error)))
        if len(failed) == len(self.trials) > 1:
            raise failure
        reports = []
        for running, fault in failed:
            reports.append(_failed(self._seat_report(running, None, None), fault))
            self.remove(running.assignment.number)
        return reports

    def _next_micro_batch(self, running: RunningTrial) -> MicroBatch:
        accumulation = running.seat.config.gradient_accumulation_steps
        if not running.window:
            # A window that was cut short starts over, so it is only ever made at its first micro-batch.
            first = running.seat.micro_step
            chosen = [running.plan.examples_at(first + i) for i in range(accumulation)]
            targets = sum(_num_predicted(example) for examples in chosen for example in examples)
            running.window = [
                MicroBatch(self._block(examples), sum(len(e.input_ids) for e in examples), max(1, targets))
                for examples in chosen
            ]
        return running.window[running.seat.micro_step % accumulation]

    def _report(self, due: list[RunningTrial]) -> list[SeatReport]:
        whole = [running for running in due if not running.watch.diverged]
        started = time.monotonic()
        losses = for_each_seat(
            lambda seats: self.pack.evaluate(seats, self._eval_blocks), [running.seat for running in whole]
        )
        self.heartbeat()
        eval_losses, faults = dict[int, float](), dict[int, Fault]()
        for running, loss in zip(whole, losses, strict=True):
            if isinstance(loss, Fault):
                faults[id(running)] = loss
            else:
                eval_losses[id(running)] = loss
                running.watch.after_evaluation(running.seat.step, loss)
        scores = self._measure([r for r in whole if not r.watch.diverged and id(r) not in faults], faults)
        outcomes = {id(r): self._outcome(r, faults.get(id(r))) for r in due}
        texts = self._finish([running for running in whole if outcomes[id(running)] == COMPLETE])
        for running in whole:
            running.wall_seconds += time.monotonic() - started
        reports = []
        for running in due:
            key, outcome = id(running), outcomes[id(running)]
            report = self._seat_report(running, outcome, eval_losses.get(key), texts.get(key, ()))
            report = replace(report, metric=scores.get(key))
            if outcome == FAILED:
                report = _failed(report, faults[key])
            reports.append(report)
            if outcome is not None:
                self.remove(running.assignment.number)
            elif time.monotonic() - running.checkpointed_at >= self.options.checkpoint_seconds:
                running.wants_checkpoint = True
        return reports

    def _measure(self, trials: list[RunningTrial], faults: dict[int, Fault]) -> dict[int, float]:
        """The metric of those whose report measures it; what it raises is added to `faults`."""
        spec, scores = self.options.metric, dict[int, float]()
        if spec is None or self._evaluator is None:
            return scores
        percents = self.options.report_at
        measured = [r for r in trials if spec.is_measured(r.report_steps[r.seat.step], percents)]
        values = self._evaluator.measure([running.seat for running in measured])
        for running, value in zip(measured, values, strict=True):
            if isinstance(value, Fault):
                faults[id(running)] = value
            else:
                scores[id(running)] = value
        self.heartbeat()
        return scores

    def _outcome(self, running: RunningTrial, fault: Fault | None) -> str | None:
        """How a trial that is due for a report has ended, None when it goes on."""
        if running.watch.diverged:
            return DIVERGED
        if fault is not None:
            return OUT_OF_MEMORY if fault.is_memory else FAILED
        return COMPLETE if running.seat.finished else None

    def _finish(self, ended: list[RunningTrial]) -> dict[int, tuple[str, ...]]:
        """Sample from trials that used their full budget, judge their curves, and write their adapters."""
        if not ended:
            return {}
        texts = {}
        sampled = for_each_seat(self._sample, [running.seat for running in ended])
        for running, samples in zip(ended, sampled, strict=True):
            if isinstance(samples, Fault):
                # Only a diagnosis: a trial that used its full budget is not lost for want of it.
                self.files.note(running.assignment, f"no text could be sampled ({samples.reason})")
                samples = []
            running.watch.after_samples(running.seat.step, samples)
            running.watch.at_end(running.seat.step)
            texts[id(running)] = tuple(str(self.pack.base.tokenizer.decode(ids)) for ids in samples)
            self.files.adapter(running, self.pack, self.heartbeat)
        return texts

    def _sample(self, seats: Sequence[Seat | None], /) -> list[list[list[int]]]:
        if not self.data.sample_prompts or self.options.sample_tokens == 0:
            return [[] for _ in seats]
        return self.pack.generate(seats, self.data.sample_prompts, self.options.sample_tokens)

    def _seat_report(
        self, running: RunningTrial, outcome: str | None, eval_loss: float | None, texts: Iterable[str] = ()
    ) -> SeatReport:
        seat, stats = running.seat, running.last_stats
        reasons = {
            COMPLETE: f"used its full budget of {seat.config.max_steps} steps",
            DIVERGED: running.watch.diverged,
            OUT_OF_MEMORY: "out of memory in the evaluation, even alone: lower per_device_eval_batch_size",
        }
        return SeatReport(
            number=running.assignment.number,
            attempt=running.assignment.attempt,
            percent=running.report_steps.get(seat.step, 100 * seat.step // seat.config.max_steps),
            step=seat.step,
            eval_loss=eval_loss,
            train_loss=stats.loss if stats else float("nan"),
            grad_norm=stats.grad_norm if stats else float("nan"),
            learning_rate=stats.learning_rate if stats else 0.0,
            num_tokens=seat.num_tokens,
            tokens_per_second=seat.num_tokens / running.wall_seconds if running.wall_seconds else 0.0,
            wall_seconds=running.wall_seconds,
            peak_memory_gib=peak_memory_gib(self.pack.base.device),
            signs=tuple(running.watch.signs),
            outcome=outcome,
            stop_reason=reasons.get(outcome) if outcome else None,
            generations=tuple(texts),
        )

    def _largest_leaves(self) -> tuple[Assignment, SeatReport]:
        """The trial that asks for the most memory leaves its seat; the others compute their windows again.

        A method of its own, so that no variable holds the seat when its memory is to be freed.
        """
        largest = max(self.trials, key=lambda r: (self._memory_weight(r), r.assignment.number))
        for running in self.trials:
            running.restart_window()
        self.remove(largest.assignment.number)
        return largest.assignment, self._seat_report(largest, None, None)

    def _memory_weight(self, running: RunningTrial) -> int:
        longest = max((share.block.input_ids.numel() for share in running.window), default=0)
        vocabulary = vocabulary_size(self.pack.model)
        return 16 * running.seat.num_trained + 4 * longest * vocabulary


def report_steps(max_steps: int, percents: Sequence[int]) -> dict[int, int]:
    """Optimizer step -> percent of the budget; where several fall on one step, the last one wins."""
    return {max(1, round(max_steps * percent / 100)): percent for percent in percents}


def _failed(report: SeatReport, fault: Fault) -> SeatReport:
    outcome = OUT_OF_MEMORY if fault.is_memory else FAILED
    return report.ended(outcome, fault.reason, error=fault.traceback)


def _num_predicted(example: TokenizedExample) -> int:
    """Targets a causal model can predict: a label on the first token has nothing before it."""
    return sum(label != -100 for label in example.labels[1:])


def peak_memory_gib(device: torch.device) -> float:
    """The allocator's peak on CUDA; the process's peak resident memory on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
