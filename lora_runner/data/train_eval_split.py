"""Decides for each record whether it trains, evaluates, or is left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_runner.data.records.convert import convert
from lora_runner.data.records.example import Example
from lora_runner.data.records.export_forms import record_forms
from lora_runner.data.records.read_files import is_single_file, read_records
from lora_runner.data.records.record_checks import (
    columns_not_used,
    is_empty,
    refuse_media,
    refuse_unwanted_answers,
)
from lora_runner.data.records.record_status import RecordStatus
from lora_runner.data_spec import DataSpec
from lora_runner.errors import DataError


@dataclass(kw_only=True)
class RecordSet:
    """The records of one source in its order, and the status of each."""

    source: str
    examples: list[Example]
    format: str = ""
    columns_not_used: tuple[str, ...] = ()
    forms: frozenset[str] = frozenset()
    """What other trainers read differently; see `export_forms.FORMS`."""
    statuses: list[RecordStatus] = field(default_factory=list)
    order: list[Example] = field(default_factory=list)
    """The used examples, in the order of use."""

    @property
    def num_by_status(self) -> Counter[RecordStatus]:
        return Counter(self.statuses)

    def mark(self, status: RecordStatus, keys: set[int]) -> None:
        """Set the status of those used examples whose `id()` is in `keys`."""
        for index, example in enumerate(self.examples):
            if self.statuses[index] == RecordStatus.USED and id(example) in keys:
                self.statuses[index] = status

    @property
    def used(self) -> list[Example]:
        """Examples still in use, in the source's order."""
        return [
            e for e, status in zip(self.examples, self.statuses, strict=True) if status == RecordStatus.USED
        ]


def split_records(spec: DataSpec) -> tuple[RecordSet, RecordSet]:
    """Read the training and evaluation records, and decide what each is used for.

    The evaluation set is ordered and sampled by a hash of the records' content, so it depends neither on the
    order of the files nor on the machine. Training records equal to an evaluation record are left out. Raises
    DataError for unreadable or unusable records, and when none are left to train or to evaluate on.
    """
    train = _read(spec, spec.train, spec.train_split)
    if spec.eval is None and spec.eval_split is None:
        held_out = _split_off(train.used, spec)
        train.mark(RecordStatus.HELD_OUT, set(map(id, held_out)))
        source = f"{spec.train} ({spec.eval_fraction:.3g} of it by content hash)"
        evaluation = RecordSet(
            source=source, examples=held_out, statuses=[RecordStatus.USED] * len(held_out), order=held_out
        )
    else:
        evaluation = _read_evaluation(spec)
    left = train.used
    known = {example.content_key for example in evaluation.order}
    train.mark(RecordStatus.IN_EVAL, {id(example) for example in left if example.content_key in known})
    if not (kept := train.used):
        raise DataError(f"all {len(left)} training records are also in the evaluation set", path=spec.train)
    if spec.max_train_examples is not None and spec.max_train_examples < len(kept):
        drawn = {id(example) for example in _draw(kept, spec.seed, spec.max_train_examples)}
        train.mark(RecordStatus.NOT_DRAWN, {id(example) for example in kept} - drawn)
    train.order = train.used
    return train, evaluation


def _read(spec: DataSpec, source: str, split: str | None) -> RecordSet:
    """Read and convert one source, refuse what must not be trained on, and mark empty records."""
    records = read_records(source, split=split)
    name, examples = convert(records, spec.format)
    refuse_unwanted_answers(records, name, source)
    refuse_media(records, examples)
    statuses = [
        RecordStatus.EMPTY if is_empty(example, completion_only=spec.completion_only) else RecordStatus.USED
        for example in examples
    ]
    if RecordStatus.USED not in statuses:
        raise DataError(
            f"none of the {len(examples):,} records has anything to learn: their answers are empty",
            path=source,
        )
    return RecordSet(
        source=source,
        examples=examples,
        format=name,
        columns_not_used=columns_not_used(records, name),
        forms=frozenset(record_forms(records, name)),
        statuses=statuses,
    )


def _read_evaluation(spec: DataSpec) -> RecordSet:
    source = spec.eval if spec.eval is not None else spec.train
    if spec.eval_split is not None and is_single_file(source):
        message = f"eval_split {spec.eval_split!r} needs a folder or a hub id, a single file has no splits"
        raise DataError(message, path=source)
    found = _read(spec, source, spec.eval_split)
    distinct = _distinct(found.used)
    found.mark(RecordStatus.COPY, set(map(id, found.used)) - set(map(id, distinct)))
    found.order = _draw(distinct, spec.seed, spec.max_eval_examples)
    found.mark(RecordStatus.NOT_DRAWN, set(map(id, distinct)) - set(map(id, found.order)))
    if spec.eval_split is not None:
        found.source = f"{source} (split {spec.eval_split})"
    return found


def _split_off(examples: Sequence[Example], spec: DataSpec) -> list[Example]:
    """Return the distinct records with the smallest hashes, which are held out for evaluation.

    At most `max_eval_examples`; the rest of the share trains.
    """
    distinct = _distinct(examples)
    if len(distinct) < 2:
        raise DataError(
            "at least two different records are needed to hold one out for evaluation; give an eval file",
            path=spec.train,
        )
    share = max(1, round(len(distinct) * spec.eval_fraction))
    share = min(share, len(distinct) - 1, spec.max_eval_examples or len(distinct))
    return _draw(distinct, spec.seed, share)


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Return the first example of each content."""
    return list({example.content_key: example for example in reversed(examples)}.values())


def _draw(examples: Sequence[Example], seed: int, count: int | None) -> list[Example]:
    """Return up to `count` examples in the order of their seeded content hash."""
    return sorted(examples, key=lambda example: _rank(example, seed))[:count]


def _rank(example: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{example.content_key}".encode()).digest()
