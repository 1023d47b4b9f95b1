"""Which base model, and which data."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, model_validator

from files_and_text.choices import DATA_FORMATS
from sweeps.config.fields import check_flag, check_one_of, check_real, check_text, check_whole, shown, wrong
from sweeps.config.sections.base import Section

ComputeDtype = Literal["auto", "bfloat16", "float32"]

_SIZE = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMbBtT]?)\s*")
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def _size(value: Any) -> float | None:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        with contextlib.suppress(ValueError):
            value = float(match[1]) * _UNITS[match[2].lower()]
    try:
        size: float | None = check_real(1, none=True)(value)
    except ValueError:
        rule = "must be a number of parameters, such as 8.03e9 or 8B"
        raise wrong(f"{rule}; got {shown(value)}") from None
    return size


class ModelSection(Section):
    """`model`: the frozen base, a hub id or a local folder; `model: NAME` alone is the same as `name`."""

    name: Annotated[str, BeforeValidator(check_text())]
    """Hub id, or a folder with config.json and safetensors weights."""
    revision: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    """Commit, tag or branch of the hub id."""
    trust_remote_code: Annotated[bool, BeforeValidator(check_flag())] = False
    """Run Python code that comes with the model."""
    compute_dtype: Annotated[ComputeDtype, BeforeValidator(check_one_of(get_args(ComputeDtype)))] = "auto"
    """Of the arithmetic on the 4-bit base; auto: bfloat16 where the device has it."""
    device_map: Annotated[Literal["auto"] | None, BeforeValidator(check_one_of(("auto",), none=True))] = None
    """auto spreads a base larger than one GPU over several."""
    size: Annotated[float | None, BeforeValidator(_size)] = None
    """Number of parameters, such as 8.03e9 or 8B; null: counted from the model's config."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


class DataSection(Section):
    """`data`: what to train on and what to measure on; `data: FILE` alone is the same as `train`."""

    train: Annotated[str, BeforeValidator(check_text())]
    """A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of such files, or a hub id."""
    eval: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    """The same for evaluation; null: eval_split, or a share of the training records."""
    train_split: Annotated[str, BeforeValidator(check_text())] = "train"
    """Split of a hub id or folder."""
    eval_split: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    """Split of a hub id or folder to evaluate on."""
    eval_fraction: Annotated[float, BeforeValidator(check_real(above=0, below=1))] = 0.05
    """Share of the training records held out when neither eval nor eval_split is given."""
    format: Annotated[
        str | None, BeforeValidator(check_one_of(DATA_FORMATS, aliases={"auto": None}, none=True))
    ] = None
    """How the records read; null: recognised from them."""
    max_length: Annotated[int, BeforeValidator(check_whole(2))] = 1024
    """Tokens per example; longer ones lose their end."""
    completion_only: Annotated[bool, BeforeValidator(check_flag())] = True
    """Loss on completions and assistant turns alone; false: on every token."""
    chat_template: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    """A Jinja file, Jinja text, or chatml; null: the tokenizer's own."""
    max_train_examples: Annotated[int | None, BeforeValidator(check_whole(1, none=True))] = None
    max_eval_examples: Annotated[int | None, BeforeValidator(check_whole(1, none=True))] = 256
    """Evaluation takes its share of every trial's time; null: all examples."""
    seed: Annotated[int, BeforeValidator(check_whole(0, 2**32 - 1))] = 0
    """Of what is held out and drawn; the same for every trial."""
    num_sample_prompts: Annotated[int, BeforeValidator(check_whole(0))] = 2
    """Evaluation prompts that every trial completes at its end, to be read."""

    @model_validator(mode="before")
    @classmethod
    def _from_train(cls, data: Any) -> Any:
        return {"train": data} if isinstance(data, str) else data
