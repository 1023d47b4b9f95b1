"""What a sweep file says about its data."""

from __future__ import annotations

from dataclasses import dataclass

from files_and_text.choices import DATA_FORMATS
from files_and_text.nearest_name import nearest
from lora_runner.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the records are, how they read, and how much of them is used.

    Raises DataError, naming every field that breaks its rule.
    """

    train: str
    """A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of such files, or a hub id
    ("owner/name" or "owner/name:config")."""
    eval: str | None = None
    """The same for evaluation; None takes evaluation records out of `train`."""
    train_split: str = "train"
    """Split of a hub id or folder; a single file has no splits and ignores it."""
    eval_split: str | None = None
    """Split of `eval` (of `train` when there is no `eval`); None: all of `eval`, or a share of `train`."""
    eval_fraction: float = 0.05
    """Share of the distinct records held out; used only when neither `eval` nor `eval_split` is given."""
    format: str | None = None
    """One of DATA_FORMATS; None recognises it from the records."""
    max_length: int = 1024
    """Tokens per example; longer ones lose their end."""
    completion_only: bool = True
    """Loss on completions and assistant turns only; False: on every token."""
    chat_template: str | None = None
    """Jinja text, the path of a file of it, or "chatml" for the built-in one; None: the tokenizer's own."""
    max_train_examples: int | None = None
    """At most so many training records, drawn by content hash; None: all."""
    max_eval_examples: int | None = 256
    """At most so many evaluation records, drawn by content hash; None: all."""
    seed: int = 0
    """Decides which records are held out and drawn; the same for every trial of a sweep."""
    num_sample_prompts: int = 2
    """Prompts of evaluation examples kept for sampled generations."""

    def __post_init__(self) -> None:
        wrong: list[str] = []
        if not self.train.strip():
            wrong.append("train must name a file, a folder or a hub id, got an empty text")
        if self.format is not None and self.format not in DATA_FORMATS:
            wrong.append(f"format {self.format!r} does not exist.{nearest(self.format, DATA_FORMATS)}")
        if not 0.0 < self.eval_fraction < 1.0:
            wrong.append(f"eval_fraction must lie strictly between 0 and 1, got {self.eval_fraction!r}")
        if self.max_length < 2:
            wrong.append(f"max_length must be at least 2 tokens, got {self.max_length!r}")
        for name in ("max_train_examples", "max_eval_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                wrong.append(f"{name} must be at least 1 (or null for all), got {value!r}")
        if self.num_sample_prompts < 0:
            wrong.append(f"num_sample_prompts must not be negative, got {self.num_sample_prompts!r}")
        if wrong:
            raise DataError("\n".join(wrong))
