"""A sweep's records as files beside a settings file, for programs that read records with their own code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from files_and_text.numbers import plural
from results.export.config_values import Config, section

TRAIN_RECORDS, EVAL_RECORDS = "train.jsonl", "eval.jsonl"
MOST_MIB = 256
"""A larger file is not written: the export is a folder to copy."""


@dataclass(frozen=True, kw_only=True)
class SweepRecords:
    """The records that the trials of a sweep used, as they are in its source."""

    eval: Sequence[Mapping[str, Any]]
    """In the order of evaluation."""
    train: Sequence[Mapping[str, Any]] | None
    """Those that were trained on, where they are not all records of the source; None: they are."""
    columns: Sequence[str]
    """Columns that the sweep read and that some record has."""


@dataclass(frozen=True, kw_only=True)
class WrittenRecords:
    """What an export writes of a sweep's records."""

    config: Config
    """The best config, with the files in place of the sources."""
    files: Mapping[str, str]
    notes: Sequence[str]


def written_records(config: Config, records: SweepRecords) -> WrittenRecords:
    """The records as files beside the settings, each of at most MOST_MIB, and the config that names them."""
    data: dict[str, Any] = {**section(config, "data"), "columns": list(records.columns)}
    files: dict[str, str] = {}
    notes: list[str] = []

    def write(name: str, kind: str, found: Sequence[Mapping[str, Any]]) -> bool:
        text = "".join(_line(record, records.columns) for record in found)
        mib = len(text.encode()) / 2**20
        size = f"{plural(len(found), 'record')}, {max(mib, 0.1):.1f} MiB"
        if mib > MOST_MIB:
            notes.append(f"The sweep's {kind} records ({size}) are not written: at most {MOST_MIB} MiB are.")
            return False
        files[name] = text
        notes.append(f"{name} holds the sweep's own {kind} records, in its order ({size}).")
        return True

    held_out = not (data.get("eval") or data.get("eval_split"))
    has_eval = write(EVAL_RECORDS, "evaluation", records.eval)
    if has_eval:
        count = len(records.eval)
        data |= {"eval": EVAL_RECORDS, "eval_split": None, "max_eval_examples": None}
        data |= {"num_eval_records": count, "num_eval_used": count}
    if records.train is not None:
        if write(TRAIN_RECORDS, "training", records.train):
            forms = [form for form in data.get("forms") or () if form != "copies_in_eval"]
            data |= {"train": TRAIN_RECORDS, "train_split": None, "max_train_examples": None}
            data |= {"forms": forms if data.get("forms") is not None else None}
        elif held_out and has_eval:
            data["eval_in_train"] = True
    return WrittenRecords(config={**config, "data": data}, files=files, notes=notes)


def _line(record: Mapping[str, Any], columns: Sequence[str]) -> str:
    """One record with all columns: LLaMA-Factory fails on a record that lacks one that it is told of."""
    kept = {name: record.get(name) for name in columns}
    return json.dumps(kept, ensure_ascii=False, default=str) + "\n"
