"""Which data a run uses, and how: the fields of the sweep file's section `data`. Imports nothing heavy."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields

from files_and_text.choices import DATA_FORMATS
from files_and_text.nearest_name import nearest
from lora_runner.errors import DataError

_BOUNDS = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the records are, how they are read, and how many of them are used.

    A field's metadata are its bounds. Raises DataError, naming every field that is out of them.
    """

    train: str
    """A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of such files, or a hub id
    ("owner/name" or "owner/name:config")."""
    eval: str | None = None
    """The same for evaluation; None: eval_split, or a share of the training records."""
    train_split: str = "train"
    """Split of a hub id or folder; a single file has no splits and ignores it."""
    eval_split: str | None = None
    """Split of `eval` (of `train` without `eval`); None: all of `eval`, or a share of `train`."""
    eval_fraction: float = field(default=0.05, metadata={"gt": 0, "lt": 1})
    """Share of the distinct records held out when neither `eval` nor `eval_split` is given."""
    format: str | None = None
    """messages, sharegpt, prompt_completion, alpaca or text; None: recognized from the records."""
    max_length: int = field(default=1024, metadata={"ge": 2})
    """Tokens per example; longer ones lose their end."""
    completion_only: bool = True
    """Loss on completions and assistant turns only; False: on every token."""
    chat_template: str | None = None
    """Jinja text, a file of it, or "chatml" for the built-in one; None: the tokenizer's own."""
    max_train_examples: int | None = field(default=None, metadata={"ge": 1})
    """At most this many training records, drawn by content hash; None: all."""
    max_eval_examples: int | None = field(default=256, metadata={"ge": 1})
    """At most this many evaluation records, drawn by content hash; None: all. Every trial spends time on
    each."""
    seed: int = field(default=0, metadata={"ge": 0, "le": 2**32 - 1})
    """Decides which records are held out and drawn; the same for every trial of a sweep."""
    num_sample_prompts: int = field(default=2, metadata={"ge": 0})
    """Evaluation prompts that the base, and every trial at its end, continue: the report shows them."""

    def __post_init__(self) -> None:
        wrong: list[str] = []
        if not self.train.strip():
            wrong.append("train must name a file, a folder or a hub id, got an empty text")
        if self.format is not None and self.format not in DATA_FORMATS:
            wrong.append(f"format {self.format!r} does not exist.{nearest(self.format, DATA_FORMATS)}")
        for item in fields(self):
            value = getattr(self, item.name)
            for bound, limit in item.metadata.items():
                holds, words = _BOUNDS[bound]
                if value is not None and not holds(value, limit):
                    wrong.append(f"{item.name} must be {words} {limit}, got {value!r}")
        if wrong:
            raise DataError("\n".join(wrong))
