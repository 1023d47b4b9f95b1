"""`data`: what to train on and what to evaluate on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from files_and_text.choices import DATA_FORMATS
from sweeps.config.field_types import NUMBER, Flag, NonNegativeInt, PositiveInt, Seed, Text, one_of
from sweeps.config.sections.base import Section


class DataSection(Section):
    """A data file or hub id, or a mapping; `data: FILE` is short for `data: {train: FILE}`."""

    short_form: ClassVar[str] = "train"

    train: Text
    """A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of such files, or a hub id."""
    eval: Text | None = None
    """The same for evaluation; null: eval_split, or a share of the training records."""
    train_split: Text = "train"
    """Split of a hub id or folder."""
    eval_split: Text | None = None
    """Split of a hub id or folder to evaluate on."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1), NUMBER] = 0.05
    """Share of the training records held out when neither eval nor eval_split is given."""
    format: Annotated[str | None, one_of(DATA_FORMATS, {"auto": None})] = None
    """Format of the records; null: recognized from them."""
    max_length: Annotated[int, Field(ge=2), NUMBER] = 1024
    """Tokens per example; longer ones lose their end."""
    completion_only: Flag = True
    """Loss on completions and assistant turns only; false: on every token."""
    chat_template: Text | None = None
    """A Jinja file, Jinja text, or chatml; null: the tokenizer's own."""
    max_train_examples: PositiveInt | None = None
    """null: all examples."""
    max_eval_examples: PositiveInt | None = 256
    """Every trial spends time on each of them; null: all examples."""
    seed: Seed = 0
    """Decides which records are held out and drawn; the same for every trial."""
    num_sample_prompts: NonNegativeInt = 2
    """Evaluation prompts that every trial completes at its end, for people to read."""
