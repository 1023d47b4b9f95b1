"""The JSON schema of sweep files (draft 2020-12), for editors: completion, descriptions, checks.

Built from pydantic's own schema of `SweepConfig`. Added is what validators decide and pydantic cannot say:
names behind `one_of`, short forms, options by sampler, pruner and scheduler, the dimensions of the space,
the name, the storage, and that one budget is given. A schema cannot compare low with high.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from files_and_text.choices import BUILT_IN_METRICS, DATA_FORMATS, SCHEDULERS
from lora_runner.data_spec import DataSpec
from search_spaces import DEFAULT_WIDEN, DIMENSION_NAMES, ON_REQUEST, load_guidelines
from sweeps.config.reference.quoted_numbers import accept_quoted_numbers
from sweeps.config.sections.data import DataSection
from sweeps.config.sections.embeddings import EMBEDDING_MODULES
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import SIZE, ModelSection
from sweeps.config.sections.search import (
    PRUNER_CLASSES,
    PRUNER_OPTIONS,
    SAMPLER_CLASSES,
    SAMPLER_OPTIONS,
    PrunerName,
    SamplerName,
)
from sweeps.config.sections.training import SCHEDULER_OPTIONS
from sweeps.config.storage_url import STORAGE_PATTERN
from sweeps.config.sweep_config import NAME_PATTERN, SweepConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def sweep_file_schema() -> Schema:
    """The schema of a sweep file as JSON values."""
    schema = SweepConfig.model_json_schema()
    sections = schema["$defs"]
    for node in (schema, *sections.values()):
        for key in node["properties"].values():
            key.pop("title", None)
    _describe_data(sections["DataSection"])
    for name in ("SearchSection", "LoraSection", "ReliabilitySection", "TrackingSection"):
        sections[name]["type"] = ["object", "null"]  # with nothing under it, it means its defaults
    for section in (ModelSection, DataSection, MetricSection):
        sections[section.__name__] |= {"type": ["object", "string"], "pattern": r"\S"}  # the short form
    keys = schema["properties"]
    _name_scenarios(schema)
    _replace(keys, "train_embeddings", anyOf=[
        {"type": "boolean"},
        {"type": "array", "items": {"enum": list(EMBEDDING_MODULES)}},
        {"$ref": "#/$defs/TrainedTokens"},
    ])  # fmt: skip
    _replace(keys, "space", **_object({name: _range(name) for name in DIMENSION_NAMES}))
    keys["space"]["type"] = ["object", "null"]
    model, data = sections["ModelSection"]["properties"], sections["DataSection"]["properties"]
    _replace(model, "size", anyOf=[
        {"type": "number", "minimum": 1}, {"type": "string", "pattern": f"^{SIZE}$"}, {"type": "null"}
    ])  # fmt: skip
    _replace(data, "format", enum=[*DATA_FORMATS, "auto", None])
    metric = sections["MetricSection"]
    metric["pattern"] = f"^({'|'.join(BUILT_IN_METRICS)})$|:"
    names = [{"enum": list(BUILT_IN_METRICS)}, {"type": "string", "pattern": ":"}]
    _replace(metric["properties"], "name", anyOf=names)
    _add_options(sections["SearchSection"])
    training = sections["TrainingSection"]["properties"]
    _replace(training, "lr_scheduler_kwargs", **_object(
        {name: _options(SCHEDULER_OPTIONS[name]) for name in SCHEDULERS}
    ))  # fmt: skip
    budgets = ("max_steps", "num_train_epochs")
    sections["TrainingSection"]["oneOf"] = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in budgets
    ]
    keys["name"]["pattern"] = NAME_PATTERN
    _replace(keys, "storage", anyOf=[{"type": "string", "pattern": STORAGE_PATTERN}, {"type": "null"}])
    lora = sections["LoraSection"]["properties"]
    lora |= {f"lora_{name}": lora[name] for name in ("r", "alpha", "dropout")}
    accept_quoted_numbers(schema)
    return {"$schema": DRAFT, "title": "qlora-sweeps sweep file"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def schema_text() -> str:
    """The schema as a file's text."""
    return json.dumps(sweep_file_schema(), indent=1, ensure_ascii=False) + "\n"


def _replace(keys: Schema, name: str, **kind: Any) -> None:
    """Other rules for a key; its description and default stay."""
    keys[name] = kind | {word: keys[name][word] for word in ("default", "description") if word in keys[name]}


def _object(properties: Mapping[str, Any]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _options(types: Mapping[str, Any]) -> Schema:
    return _object({name: TypeAdapter(kind).json_schema() for name, kind in types.items()})


def _describe_data(section: Schema) -> None:
    """The lines below the fields of DataSpec, whose section is made from them."""
    (body,) = ast.parse(inspect.getsource(DataSpec)).body
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            line = " ".join(str(ast.literal_eval(text.value)).split())
            line = line.replace("None:", "null:").replace("False:", "false:")
            section["properties"][field.target.id].setdefault("description", line)


def _name_scenarios(schema: Schema) -> None:
    """Without files of one's own rows, only the built-in scenarios exist."""
    schema["allOf"] = [
        {
            "if": {"properties": {"guidelines": {"maxItems": 0}}},
            "then": {"properties": {"scenario": {"enum": load_guidelines().scenarios()}}},
        }
    ]


def _range(name: str) -> Schema:
    """One dimension's own range, choices or value."""
    value: Schema = {"enum": list(SCHEDULERS)} if name == "lr_scheduler_type" else {"type": "number"}
    several: Schema = {"type": "array", "items": value, "minItems": 1}
    listed: Schema = {"choices": several, "value": value, "try": several, "why": {"type": "string"}}
    if "enum" in value:
        return {**_object(listed), "minProperties": 1}
    ends = {"low": value, "high": value, "log": {"type": "boolean"}, "step": value}
    return {**_object({**ends, **listed}), "minProperties": 1}


def _add_options(search: Schema) -> None:
    keys = search["properties"]
    _replace(keys, "sampler", enum=[*get_args(SamplerName), *SAMPLER_CLASSES])
    _replace(keys, "pruner", enum=[*get_args(PrunerName), *PRUNER_CLASSES])
    _replace(keys, "include", type="array", items={"enum": list(ON_REQUEST)})
    _replace(keys, "widen", **_object({name: {"type": "number", "minimum": 1} for name in DEFAULT_WIDEN}))
    search["allOf"] = [
        *_by_name("sampler", SAMPLER_OPTIONS, SAMPLER_CLASSES, keys["sampler"]["default"]),
        *_by_name("pruner", PRUNER_OPTIONS, PRUNER_CLASSES, keys["pruner"]["default"]),
    ]


def _by_name(
    key: str, options: Mapping[str, Mapping[str, Any]], classes: Mapping[str, str], default: str
) -> Iterable[Schema]:
    for name, types in options.items():
        names = [name, *(spelled for spelled, meant in classes.items() if meant == name)]
        # Where the key is missing, `properties` holds: then the default's options apply.
        given: Schema = {"properties": {key: {"enum": names}}}
        given |= {} if name == default else {"required": [key]}
        yield {"if": given, "then": {"properties": {f"{key}_options": _options(types)}}}


def is_own_schema(file: Path) -> bool:
    """Whether a file was written by this program and so may be replaced."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("title") == "qlora-sweeps sweep file"
