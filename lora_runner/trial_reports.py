"""Reports of trials: evaluation loss and metric, and at the end of the budget samples and the adapter."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from lora_runner.adapter_digest import AdapterDigests
from lora_runner.data import DataBundle, TokenizedSet
from lora_runner.errors import Fault, ModelError
from lora_runner.layout.pack_layout import Block
from lora_runner.metric.evaluator import make_evaluator
from lora_runner.pack.pack import Pack
from lora_runner.pack.record_sums import Evaluation
from lora_runner.pack.seat import Seat
from lora_runner.pack.seat_by_seat import for_each_seat
from lora_runner.protocol import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    BaseSamples,
    RecordLosses,
    SeatReport,
    SessionOptions,
)
from lora_runner.running_trial import RunningTrial, block_of
from lora_runner.stability import repetition
from lora_runner.trial_files import TrialFiles

SHOWN_CHARACTERS = 2000
"""Of a sample's prompt the end and of its answer the beginning, as far as they are kept in the study."""
T = TypeVar("T")
Faults = dict[RunningTrial, Fault]


class Reporter:
    """Evaluates the trials of one session. `heartbeat` is called after each piece of work.

    Raises ModelError when the untouched base has no finite loss on the evaluation set.
    """

    def __init__(
        self,
        pack: Pack,
        data: DataBundle,
        options: SessionOptions,
        files: TrialFiles,
        heartbeat: Callable[[], None],
    ) -> None:
        self._pack, self._data, self._options, self._files = pack, data, options, files
        self._heartbeat = heartbeat
        self._digests = AdapterDigests()
        self.eval_blocks, self._block_order = _eval_blocks(
            data.eval, options.per_device_eval_batch_size, pack.base.device
        )
        self.base_eval_loss = pack.evaluate([None], self.eval_blocks)[0]
        if not math.isfinite(self.base_eval_loss):
            raise ModelError(
                f"the untouched base {pack.base.spec.model!r} has evaluation loss {self.base_eval_loss}: its "
                f"weights are damaged, or {pack.base.compute_dtype} is too narrow for them"
            )
        base_texts = self._sample([None])[0]
        self.base_repetition = repetition(base_texts)
        self.base_samples = self._base_samples(base_texts)
        self._evaluator = (
            None
            if options.metric is None
            else make_evaluator(pack, options.metric, data.eval_prompts, options.per_device_eval_batch_size)
        )

    def measure_base(self) -> float | None:
        """The metric of the untouched base; None, with a note, where its answers or their scoring raised."""
        if self._evaluator is None or self._options.metric is None:
            return None
        if self._options.metric.max_new_tokens and (reason := self._pack.generator.uncached_reason):
            self._files.note_of_base(f"answers cost a pass over the whole text for each token: {reason}")
        [value] = self._evaluator.measure([None])
        self._heartbeat()
        if isinstance(value, Fault):
            self._files.note_of_base(f"has no {self._options.metric.name} ({value.reason})")
            return None
        return value

    def report(self, due: list[RunningTrial]) -> list[SeatReport]:
        """Evaluate trials that are due, and finish those that have used their budget; a report for each."""
        started = time.monotonic()
        sound = [trial for trial in due if not trial.watch.diverged]
        faults: Faults = {}
        digests = dict(zip(sound, self._digests.start([trial.seat for trial in sound]), strict=True))
        self._heartbeat()
        evaluated = self._evaluate(sound, faults)
        scores = self._measure([t for t in sound if not t.watch.diverged and t not in faults], faults)
        outcomes = {trial: _outcome(trial, faults.get(trial)) for trial in due}
        texts = self._finish([trial for trial in sound if outcomes[trial] == COMPLETE])
        for trial in sound:
            trial.wall_seconds += time.monotonic() - started
        reports = []
        for trial in due:
            report = self.seat_report(
                trial,
                outcomes[trial],
                evaluated[trial].mean if trial in evaluated else None,
                scores.get(trial),
                texts.get(trial, ()),
                digests[trial].result() if trial in evaluated else None,
            )
            if report.outcome == COMPLETE and trial in evaluated:
                report = replace(report, record_losses=self.record_losses(evaluated[trial]))
            reports.append(failed(report, faults[trial]) if outcomes[trial] == FAILED else report)
        return reports

    def _evaluate(self, trials: list[RunningTrial], faults: Faults) -> dict[RunningTrial, Evaluation]:
        """The evaluation of each trial that has one; what the others raise is added to `faults`."""
        results = for_each_seat(
            lambda seats: self._pack.evaluate_records(seats, self.eval_blocks),
            [trial.seat for trial in trials],
        )
        self._heartbeat()
        evaluated = _values(trials, results, faults)
        for trial, found in evaluated.items():
            trial.watch.after_evaluation(trial.seat.step, found.mean)
        return evaluated

    def record_losses(self, found: Evaluation) -> RecordLosses:
        """The losses of single records in the order of the evaluation set, from that of the blocks."""
        counts = np.concatenate([block.targets_per_sequence for block in self.eval_blocks])
        back = np.argsort(self._block_order)
        return RecordLosses(
            nats=tuple(np.array(found.sums)[back].tolist()), tokens=tuple(counts[back].tolist())
        )

    def _measure(self, trials: list[RunningTrial], faults: Faults) -> dict[RunningTrial, float]:
        """The metric of those whose report measures it; what the others raise is added to `faults`."""
        spec, percents = self._options.metric, self._options.report_at
        if spec is None or self._evaluator is None:
            return {}
        measured = [t for t in trials if spec.is_measured(t.report_steps[t.seat.step], percents)]
        results = self._evaluator.measure([trial.seat for trial in measured])
        self._heartbeat()
        return _values(measured, results, faults)

    def _finish(self, ended: list[RunningTrial]) -> dict[RunningTrial, tuple[str, ...]]:
        """Sample from trials that used their full budget, look for signs in their curves, save adapters."""
        if not ended:
            return {}
        texts = {}
        sampled = for_each_seat(self._sample, [trial.seat for trial in ended])
        for trial, samples in zip(ended, sampled, strict=True):
            if isinstance(samples, Fault):
                # Samples are only a diagnosis: the trial is complete without them.
                self._files.note(trial.assignment, f"no text could be sampled ({samples.reason})")
                samples = []
            trial.watch.after_samples(trial.seat.step, samples)
            trial.watch.at_end(trial.seat.step)
            texts[trial] = self._texts(samples)
            self._files.adapter(trial, self._pack, self._heartbeat)
        return texts

    def _sample(self, seats: Sequence[Seat | None], /) -> list[list[list[int]]]:
        if not self._data.sample_prompts or self._options.sample_tokens == 0:
            return [[] for _ in seats]
        return self._pack.generate(seats, self._data.sample_prompts, self._options.sample_tokens)

    def _base_samples(self, generated: Sequence[Sequence[int]]) -> BaseSamples | None:
        """None where nothing is sampled."""
        if not generated:
            return None
        end = self._pack.base.tokenizer.eos_token_id
        answers = [ids[:-1] if ids[-1:] == (end,) else ids for ids in self._data.sample_answers]
        return BaseSamples(
            prompts=tuple(text[-SHOWN_CHARACTERS:] for text in self._texts(self._data.sample_prompts)),
            answers=tuple(text[:SHOWN_CHARACTERS] for text in self._texts(answers)),
            generations=self._texts(generated),
        )

    def _texts(self, sequences: Iterable[Sequence[int]]) -> tuple[str, ...]:
        return tuple(str(self._pack.base.tokenizer.decode(list(ids))) for ids in sequences)

    def seat_report(
        self,
        trial: RunningTrial,
        outcome: str | None = None,
        eval_loss: float | None = None,
        metric: float | None = None,
        texts: tuple[str, ...] = (),
        adapter_sha256: str | None = None,
    ) -> SeatReport:
        """The report of a trial as it stands."""
        seat, stats = trial.seat, trial.last_stats
        reasons = {
            COMPLETE: f"used its full budget of {seat.config.max_steps} steps",
            DIVERGED: trial.watch.diverged,
            OUT_OF_MEMORY: "out of memory in the evaluation, even alone: lower per_device_eval_batch_size",
        }
        return SeatReport(
            number=trial.number,
            attempt=trial.assignment.attempt,
            percent=trial.report_steps.get(seat.step, 100 * seat.step // seat.config.max_steps),
            step=seat.step,
            eval_loss=eval_loss,
            train_loss=stats.loss if stats else float("nan"),
            grad_norm=stats.grad_norm if stats else float("nan"),
            learning_rate=stats.learning_rate if stats else 0.0,
            num_tokens=seat.num_tokens,
            tokens_per_second=seat.num_tokens / trial.wall_seconds if trial.wall_seconds else 0.0,
            wall_seconds=trial.wall_seconds,
            peak_memory_gib=peak_memory_gib(self._pack.base.device),
            signs=tuple(trial.watch.signs),
            outcome=outcome,
            stop_reason=reasons.get(outcome) if outcome else None,
            generations=texts,
            metric=metric,
            adapter_sha256=adapter_sha256,
            device=device_name(self._pack.base.device),
            num_threads=None if self._pack.base.device.type == "cuda" else torch.get_num_threads(),
            compute_path="; ".join(self._pack.path.describe()),
        )


def _values(
    trials: Sequence[RunningTrial], results: Sequence[T | Fault], faults: Faults
) -> dict[RunningTrial, T]:
    """The results that are values; the others are added to `faults`."""
    values: dict[RunningTrial, T] = {}
    for trial, result in zip(trials, results, strict=True):
        if isinstance(result, Fault):
            faults[trial] = result
        else:
            values[trial] = result
    return values


def failed(report: SeatReport, fault: Fault) -> SeatReport:
    """The report of a trial that ended with a fault."""
    outcome = OUT_OF_MEMORY if fault.is_memory else FAILED
    return report.ended(outcome, fault.reason, error=fault.traceback)


def _outcome(trial: RunningTrial, fault: Fault | None) -> str | None:
    """How a trial that is due for a report has ended; None when it goes on."""
    if trial.watch.diverged:
        return DIVERGED
    if fault is not None:
        return OUT_OF_MEMORY if fault.is_memory else FAILED
    return COMPLETE if trial.seat.finished else None


def _eval_blocks(found: TokenizedSet, batch_size: int, device: torch.device) -> tuple[list[Block], list[int]]:
    """The evaluation set in blocks, and the indices of its examples in their order."""
    # Sorted by length only so that similar ones attend together; the order changes no sum over tokens.
    order = sorted(range(len(found.examples)), key=lambda i: len(found.examples[i].input_ids))
    ordered = [found.examples[i] for i in order]
    blocks = [block_of(ordered[i : i + batch_size], device) for i in range(0, len(ordered), batch_size)]
    return blocks, order


def device_name(device: torch.device) -> str:
    """What computes there: bits are only equal on the same kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}"


def peak_memory_gib(device: torch.device) -> float:
    """The allocator's peak on CUDA; the process's peak resident memory on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
