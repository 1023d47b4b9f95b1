"""A trial's record beside what training it again gave: every value, and whether all bits are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from files_and_text.trial_paths import ADAPTER, ADAPTER_WEIGHTS
from sweeps.replay.train_again import TrainedAgain
from sweeps.replay.trial_record import RecordedValue, TrialRecord, same_bits
from sweeps.study.base_check import BASE_EVAL_LOSS

BASE = "base_eval_loss"
"""Name of the untouched base's loss, at 0% of the budget."""
ADAPTER_FILE = "adapter file"


@dataclass(frozen=True)
class ComparedValue:
    """A recorded value and the one found now."""

    percent: int
    name: str
    recorded: Any
    found: Any
    source: str
    """Where it is recorded."""

    @property
    def is_equal(self) -> bool:
        return same_bits(self.recorded, self.found)


@dataclass(frozen=True)
class Replay:
    """How a trial that was trained again compares with its record."""

    number: int
    values: tuple[ComparedValue, ...]
    """By rising percent, then in the order in which they are computed."""
    last_percent: int
    outcome: str | None
    """Of the recorded trial; None if it has not ended."""
    lacking: tuple[str, ...] = ()
    """Names of values that no report of the record has, so that they are not compared."""
    notes: tuple[str, ...] = ()
    """How this machine differs from the one that wrote the record, and whether the trial has ended."""

    @property
    def first_difference(self) -> ComparedValue | None:
        """The first value that is not the same, in the order in which they are computed."""
        return next((value for value in self.values if not value.is_equal), None)

    @property
    def is_equal(self) -> bool:
        return self.first_difference is None


def compare(
    record: TrialRecord, found: TrainedAgain, study: Mapping[str, Any], versions: Mapping[str, str]
) -> Replay:
    """`study` are the study's user attributes, `versions` those of the packages installed here."""
    return Replay(
        number=record.number,
        values=tuple(_values(record, found, study)),
        last_percent=record.percents[-1],
        outcome=record.outcome,
        lacking=tuple(record.lacking),
        notes=tuple(_notes(record, found, study.get("versions") or {}, versions)),
    )


def _values(record: TrialRecord, found: TrainedAgain, study: Mapping[str, Any]) -> Iterator[ComparedValue]:
    if (base := study.get(BASE_EVAL_LOSS)) is not None:
        yield ComparedValue(0, BASE, base, found.base_eval_loss, "study")
    for recorded in record.values:
        report = found.reports.get(recorded.percent)
        if report is None and _is_before(recorded, record, found):
            continue
        value = None if report is None else getattr(report, recorded.name)
        yield ComparedValue(recorded.percent, recorded.name, recorded.value, value, recorded.source)
    # A record without digests may still have the adapter itself.
    file = record.adapter_file
    if "adapter_sha256" in record.lacking and file is not None:
        here = None if found.adapter is None else _digest(found.adapter)
        yield ComparedValue(
            100, ADAPTER_FILE, _digest(file.read_bytes()), here, f"{ADAPTER}/{ADAPTER_WEIGHTS}"
        )


def _is_before(recorded: RecordedValue, record: TrialRecord, found: TrainedAgain) -> bool:
    """Whether a report lies before the checkpoint from which the trial went on."""
    steps = {value.percent: value.value for value in record.values if value.name == "step"}
    step = steps.get(recorded.percent, recorded.percent * record.config.max_steps // 100)
    return bool(step <= found.from_step)


def _path(described: str) -> str:
    """Without the reason, which names the machine."""
    name, _, rest = described.partition(":")
    parts = rest.split("; ")[1:]
    return f"{name} ({'; '.join(parts)})" if parts else name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _notes(
    record: TrialRecord, found: TrainedAgain, before: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[str]:
    if record.outcome is None:
        yield "the trial has not ended; compared up to its last report"
    differing = []
    if record.device is not None and record.device != found.device:
        differing.append(f"{record.device} then, {found.device} now")
    if record.num_threads != found.num_threads and record.num_threads is not None:
        differing.append(f"{record.num_threads} threads then, {found.num_threads} now")
    if record.compute_path is not None and (then := _path(record.compute_path)) != (
        is_now := _path(found.compute_path)
    ):
        differing.append(f"computed as {then} then, as {is_now} now")
    for package in sorted({*before, *now}):
        if before.get(package) != now.get(package):
            differing.append(f"{package} {before.get(package, 'none')} then, {now.get(package, 'none')} now")
    if differing:
        yield (
            "equal bits are only promised on the same kind of device with the same library versions: "
            + "; ".join(differing)
        )
