"""The records that the trials of a sweep trained and evaluated on, for exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_runner.errors import DataError

if TYPE_CHECKING:
    from results.export.written_records import SweepRecords
    from sweeps.config import SweepConfig


def used_records(config: SweepConfig, *, train_digest: str | None, eval_digest: str | None) -> SweepRecords:
    """Read the sweep's records again, and hold their tokens against the study's digests.

    A digest that is None is not compared. Raises DataError for records that cannot be read or are others than
    those of the trials, ModelError when the base has no tokenizer any more.
    """
    from lora_runner.base.load_model import load_tokenizer
    from lora_runner.data.chat.chat_template import resolve_chat_template
    from lora_runner.data.records.record_checks import COLUMNS_READ
    from lora_runner.data.records.record_status import RecordStatus
    from lora_runner.data.tokens.build_sequences import build_sequences
    from lora_runner.data.tokens.tokenize import TokenizedSet, num_targets, truncate_and_label
    from lora_runner.data.train_eval_split import RecordSet, split_records
    from results.export.written_records import SweepRecords
    from sweeps.plan.build_blueprint import base_spec

    spec = config.data
    tokenizer = load_tokenizer(base_spec(config))
    template = resolve_chat_template(spec.chat_template, tokenizer)

    def used(found: RecordSet, role: str, digest: str | None) -> list[int]:
        """Indices of the records with a token with loss within max_length."""
        kept, sets = {}, []
        for sequence in build_sequences(
            found.order, tokenizer, template, completion_only=spec.completion_only
        ):
            example, _ = truncate_and_label(
                sequence, max_length=spec.max_length, completion_only=spec.completion_only
            )
            if num_targets(example):
                kept[sequence.example] = True
                sets.append(example)
        if digest is not None and TokenizedSet.of(sets, source=found.source).digest != digest:
            raise DataError(f"the {role} records are not those of the sweep any more", path=found.source)
        return list(kept)

    train, evaluation = split_records(spec)
    in_eval = [evaluation.order[index].fields for index in used(evaluation, "evaluation", eval_digest)]
    in_train = None
    if set(train.statuses) != {RecordStatus.USED}:
        in_train = [train.order[index].fields for index in used(train, "training", train_digest)]
    records = [example.fields for example in (*train.examples, *evaluation.examples)]
    return SweepRecords(
        eval=in_eval,
        train=in_train,
        columns=[
            name for name in COLUMNS_READ[train.format] if any(r.get(name) is not None for r in records)
        ],
    )
