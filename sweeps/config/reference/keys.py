"""Every key of a sweep file with what it may be, its default and its meaning, read from the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from files_and_text.numbers import number
from files_and_text.yaml_lines import dump_yaml
from sweeps.config.reference.json_schema import Schema, sweep_file_schema
from sweeps.config.sections.search import PRUNER_CLASSES, SAMPLER_CLASSES

REQUIRED = object()
"""In the place of a default: the key must be given."""
SECTIONS = ("model", "data", "training", "lora", "metric", "search", "reliability", "tracking")
"""Keys that hold keys of their own, in the order in which they are explained."""


@dataclass(frozen=True)
class Key:
    """One key of a sweep file."""

    section: str
    """The section that it stands in; empty at the top of the file."""
    name: str
    kind: str
    """What a value may be, in words: type, bounds, names."""
    default: Any
    meaning: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def default_text(self) -> str:
        """The default as YAML; for a required key "required"."""
        return "required" if self.default is REQUIRED else yaml_value(self.default)


@cache
def all_keys() -> tuple[Key, ...]:
    """The keys at the top of the file, then those of each section."""
    schema = sweep_file_schema()
    top = tuple(_keys("", schema, schema))
    sections = {name: _section(schema, name) for name in SECTIONS}
    return (*top, *(key for name, node in sections.items() for key in _keys(name, node, schema)))


def keys_of(section: str) -> tuple[Key, ...]:
    """The keys of one section, in their order; those at the top for an empty name."""
    return tuple(key for key in all_keys() if key.section == section)


def kind_text(node: Schema, root: Schema | None = None) -> str:
    """What a schema allows, in words; null is left out, since the default shows it."""
    if "$ref" in node:
        found = (root or {})["$defs"][node["$ref"].rpartition("/")[2]]
        return "mapping of keys" if "string" not in found["type"] else "text or a mapping of keys"
    if "anyOf" in node:
        parts = (kind_text(part, root) for part in node["anyOf"] if part.get("type") != "null")
        return " or ".join(dict.fromkeys(parts))
    if "enum" in node or "const" in node:
        values = node.get("enum", [node.get("const")])
        shown = (v for v in values if v is not None and v not in (*SAMPLER_CLASSES, *PRUNER_CLASSES))
        return ", ".join(map(yaml_value, shown))
    if node["type"] == "array":
        return f"list of {kind_text(node['items'], root).replace('number,', 'numbers,')}"
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "string": "text",
        "object": "mapping of keys",
    }
    kind = node["type"] if isinstance(node["type"], str) else node["type"][0]
    return words[kind] + _bounds(node)


def yaml_value(value: Any) -> str:
    """A value as it stands behind a key."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    return dump_yaml([value], one_line=True).strip()[1:-1]


def _bounds(node: Schema) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    given = [f"{word} {node[bound]:.12g}" for bound, word in words.items() if bound in node]
    return f", {' and '.join(given)}" if given else ""


def _keys(section: str, node: Schema, root: Schema) -> Iterator[Key]:
    required = node.get("required", ())
    names: Mapping[str, Schema] = node["properties"]
    for name, key in names.items():
        if name.removeprefix("lora_") in names and name.startswith("lora_"):
            continue  # the other spelling of the same key
        default = REQUIRED if name in required else key.get("default", {})
        yield Key(section, name, kind_text(key, root), default, " ".join(key["description"].split()))


def _section(schema: Schema, name: str) -> Schema:
    node = schema["properties"][name]
    options = [node, *node.get("anyOf", ())]
    reference = next(option["$ref"] for option in options if "$ref" in option)
    found: Schema = schema["$defs"][reference.rpartition("/")[2]]
    return found
