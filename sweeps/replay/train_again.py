"""One trial trained alone in this process, without Ray, up to the last report of its record."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files_and_text.trial_paths import ADAPTER, ADAPTER_WEIGHTS, CHECKPOINT
from lora_runner.protocol import Assignment, SeatReport
from sweeps.errors import ReplayError
from sweeps.plan.specs import WorkerSpec
from sweeps.replay.kept_checkpoints import KeptCheckpoint, take_checkpoint
from sweeps.replay.trial_record import NOT_REACHED, TrialRecord
from sweeps.study.base_check import base_difference

if TYPE_CHECKING:
    from lora_runner.session import Session

NEVER = 1e9
"""Seconds until a checkpoint: none is needed here."""


@dataclass(frozen=True)
class TrainedAgain:
    """What came of training a trial again."""

    reports: dict[int, SeatReport]
    """By percent of the budget."""
    base_eval_loss: float
    from_step: int
    """The step of the checkpoint that it went on from; 0 without one."""
    adapter: bytes | None
    """The file of the adapter's weights; None unless the whole budget was used."""
    device: str
    num_threads: int | None
    compute_path: str


def train_again(
    record: TrialRecord,
    spec: WorkerSpec,
    study: Mapping[str, Any],
    *,
    from_percent: int | None,
    kept: Sequence[KeptCheckpoint],
    progress: Callable[[str], None],
) -> TrainedAgain:
    """Train the trial of `record` on a pack of one seat; `study` are the study's user attributes.

    Raises ReplayError when the base is another one or the checkpoint cannot be used, and ModelError.
    """
    with tempfile.TemporaryDirectory(prefix="sweeps-replay-") as name:
        folder, checkpoint = Path(name), None
        if from_percent is not None:
            checkpoint = take_checkpoint(record, kept, from_percent, folder)
        progress("loading the base")
        with _threads(record.num_threads):
            session = _open_session(record, spec)
            _check_base(record, session, study)
            session.start_trial(0, Assignment(number=record.number, config=record.config, folder=name))
            if checkpoint is not None:
                _check_resumed(record, checkpoint, session, folder)
            reports: dict[int, SeatReport] = {}
            while session.trials and max(reports, default=0) < record.percents[-1]:
                for report in session.advance():
                    if report.outcome in NOT_REACHED:
                        raise ReplayError(
                            f"trial {record.number} cannot be trained here: {report.stop_reason}"
                        )
                    reports[report.percent] = report
                if session.trials:
                    progress(f"step {session.trials[0].seat.step} of {record.config.max_steps}")
        weights, last = folder / ADAPTER / ADAPTER_WEIGHTS, reports[max(reports)]
        return TrainedAgain(
            reports=reports,
            base_eval_loss=session.base_eval_loss,
            from_step=0 if checkpoint is None else checkpoint.step,
            adapter=weights.read_bytes() if weights.is_file() else None,
            device=str(last.device),
            num_threads=last.num_threads,
            compute_path=str(last.compute_path),
        )


def _open_session(record: TrialRecord, spec: WorkerSpec) -> Session:
    """A session with one seat, on the general path if that was the trial's."""
    import torch

    from lora_runner.base.load_model import load_base, resolve_dtype
    from lora_runner.certificate.decision import decide_here
    from lora_runner.fused.compute_path import Machine
    from lora_runner.pack.pack import Pack
    from lora_runner.session import Session

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    decision = decide_here(spec.sizes, resolve_dtype(spec.base.compute_dtype, device))
    base = load_base(spec.base)
    machine = Machine.of(base.device, base.compute_dtype, decision)
    if record.is_general:
        machine = replace(machine, has_fused_kernels=False, reason="as recorded", new_pool=None)
    options = replace(spec.session, checkpoint_seconds=NEVER, sample_tokens=0)
    return Session(Pack(base, spec.pack, machine), spec.data, options, num_seats=1)


def _check_base(record: TrialRecord, session: Session, study: Mapping[str, Any]) -> None:
    difference = base_difference(
        study,
        weights=session.base_weights,
        base_eval_loss=session.base_eval_loss,
        compute_dtype=str(session.pack.base.compute_dtype).removeprefix("torch."),
    )
    if difference is not None:
        raise ReplayError(f"trial {record.number} was trained on another base: {difference}")


def _check_resumed(record: TrialRecord, checkpoint: KeptCheckpoint, session: Session, folder: Path) -> None:
    """ReplayError unless the seat is at the checkpoint's step; a session starts over where it cannot be."""
    from lora_runner.checkpoint import load_checkpoint
    from lora_runner.errors import CheckpointError

    seat, copy = session.trials[0].seat, folder / CHECKPOINT
    if seat.step == checkpoint.step:
        return
    reason = f"it holds step {seat.step} now"
    try:
        load_checkpoint(copy, seat)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{copy}: ").replace(str(copy), checkpoint.place)
    raise ReplayError(
        f"trial {record.number} cannot go on from its checkpoint at {checkpoint.percent}% of its budget "
        f"(step {checkpoint.step}, in {checkpoint.place}), so nothing was compared: {reason}; a sweep that "
        "is running may have replaced it: replay again, or without --from"
    )


@contextmanager
def _threads(recorded: int | None) -> Iterator[None]:
    """As many threads as when the trial was recorded, by default all; the process gets its own back."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(recorded or len(os.sched_getaffinity(0)))
        yield
    finally:
        torch.set_num_threads(before)
