"""`data`: the fields of `lora_runner.data_spec.DataSpec`, checked like any other section."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, create_model

from files_and_text.choices import DATA_FORMATS
from lora_runner.data_spec import DataSpec
from sweeps.config.field_types import NUMBER, Flag, Text, one_of
from sweeps.config.sections.base import Section


class _TrainingData(Section):
    short_form: ClassVar[str] = "train"

    train: Text
    """A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, a folder of such files, or a hub id."""


def _type_of(spec: dataclasses.Field[Any]) -> Any:
    if spec.name == "format":
        return Annotated[str | None, one_of(DATA_FORMATS, {"auto": None})]
    numbers = {kind.__name__: Annotated[kind, Field(**spec.metadata), NUMBER] for kind in (int, float)}
    name, _, null = str(spec.type).partition(" | ")
    checked: Any = {"str": Text, "bool": Flag, **numbers}[name]
    return checked | None if null else checked


_FIELDS: dict[str, Any] = {
    spec.name: (_type_of(spec), spec.default) for spec in dataclasses.fields(DataSpec) if spec.name != "train"
}
DataSection = create_model("DataSection", __base__=_TrainingData, **_FIELDS)


def _read(value: Any) -> DataSpec:
    return value if isinstance(value, DataSpec) else DataSpec(**dict(DataSection.model_validate(value)))


Data = Annotated[DataSpec, BeforeValidator(_read, json_schema_input_type=DataSection)]
"""A data file or hub id, or a mapping; `data: FILE` is short for `data: {train: FILE}`."""
