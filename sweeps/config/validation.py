"""Translates pydantic's errors into findings: a key of the sweep file, and in words what is wrong with it.

A validator raises ValueError about the key that it checks, or `refusal` about keys below it. Its message is
what follows the key: "must be ...; got ...". For pydantic's own constraints the rule is taken from the JSON
schema, so bounds and names are written only once, in the types.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from files_and_text import yaml_lines
from files_and_text.nearest_name import did_you_mean, nearest
from files_and_text.yaml_lines import KeyPath
from search_spaces.rows import PARAMETERS
from sweeps.config.dropped_keys import DROPPED
from sweeps.config.url_passwords import has_password, masked

Finding = tuple[KeyPath, str]
"""A key, and what is wrong with it, to be read after the key's name."""
Schema = dict[str, Any]

MAX_GUESSES = 200
"""Only this many findings suggest a similar name: thousands would take minutes."""


def findings(error: ValidationError, schema: Schema) -> list[Finding]:
    """Every finding of a validation once, in its order; `schema` is the JSON schema of what was validated."""
    found: dict[KeyPath, str] = {}
    for detail in error.errors(include_url=False):
        path, node = _find(schema, detail["loc"])
        may_guess = len(found) < MAX_GUESSES
        if detail["type"] == "value_error":
            found[path] = str(detail["ctx"]["error"])
        elif detail["type"] == "refusal":
            found[detail["loc"]] = detail["ctx"]["message"]
        elif detail["type"] == "extra_forbidden":
            found[detail["loc"]] = _unknown_key(schema, node, detail["loc"], may_guess=may_guess)
        elif detail["type"] == "missing":
            found[path] = f"is missing: {node.get('description', '').partition(';')[0].rstrip('.')}"
        else:
            found[path] = _broken_rule(node, detail["input"], schema, may_guess=may_guess)
    # When a union fails, what is wrong inside one of its members says more than that none of them fits.
    inner = {path[:length] for path in found for length in range(len(path))}
    return [(path, message) for path, message in found.items() if path not in inner]


def validated(adapter: TypeAdapter[Any], value: Any) -> Any:
    """The value as the adapter's type, for validators that check more than their field's type says."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise refusal(findings(error, adapter.json_schema())) from None


def refusal(found: Iterable[Finding]) -> ValidationError:
    """An error for a validator to raise about keys below its own."""
    errors = [
        InitErrorDetails(
            type=PydanticCustomError("refusal", "{message}", {"message": message}), loc=path, input=None
        )
        for path, message in found
    ]
    return ValidationError.from_exception_data("sweep file", errors)


def dotted(path: KeyPath) -> str:
    """("data", "train") as data.train, list items as guidelines[0], no key as "the sweep file"."""
    return yaml_lines.dotted(path) or "the sweep file"


def shown(value: object) -> str:
    """The value as the user wrote it, without a password, cut to a length that fits a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping of keys" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    hide = isinstance(value, str) and "://" in value and has_password(value)
    text = repr(masked(str(value)) if hide else value)
    return text if len(text) <= 60 else text[:57] + "..."


def unknown_name(
    value: object, known: Iterable[str], *, also: Iterable[str] = (), may_guess: bool = True
) -> str:
    """Says that the name is not among `known`; `also` are names that are suggested but not listed."""
    names = tuple(known)
    hint = did_you_mean(value, (*names, *also)) if may_guess else ""
    return f"must be a known name; got {shown(value)}.{hint} Known: {', '.join(names)}."


def _find(schema: Schema, loc: KeyPath) -> tuple[KeyPath, Schema]:
    """The key at pydantic's location, without its tags for members of a union, and the key's schema."""
    path: list[str | int] = []
    node = schema
    for key in loc:
        below = next(
            (found for kind in _kinds(node, schema) if (found := _below(kind, key)) is not None), None
        )
        if below is not None:
            path.append(key)
            node = below
    return tuple(path), node


def _kinds(node: Schema, root: Schema) -> list[Schema]:
    """The schemas of what a value may be, except null."""
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    if "anyOf" not in node:
        return [] if node.get("type") == "null" else [node]
    return [kind for option in node["anyOf"] for kind in _kinds(option, root)]


def _below(node: Schema, key: str | int) -> Schema | None:
    return node.get("items") if isinstance(key, int) else node.get("properties", {}).get(key)


def _broken_rule(node: Schema, value: object, root: Schema, *, may_guess: bool) -> str:
    kinds = _kinds(node, root)
    names = [name for kind in kinds for name in kind.get("enum", ())]
    if names and all(isinstance(name, str) for name in names):
        return unknown_name(value, names, may_guess=may_guess)
    text = all(kind.get("type") == "string" and "const" not in kind for kind in kinds)
    quote = "; put it in quotes" if text and isinstance(value, int | float) else ""
    return f"must be {' or '.join(map(_rule, kinds))}; got {shown(value)}{quote}"


def _rule(kind: Schema) -> str:
    """What one kind of value has to be: "a whole number, at least 1"."""
    if "const" in kind or "enum" in kind:
        return " or ".join(map(str, kind.get("enum", [kind.get("const")])))
    if kind["type"] == "array":
        return f"a list of {kind.get('title', 'values')}"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "object": "a mapping of keys",
    }
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    given = " and ".join(f"{word} {kind[key]:g}" for key, word in bounds.items() if key in kind)
    return words[kind["type"]] + (f", {given}" if given else "")


def _unknown_key(root: Schema, owner: Schema, path: KeyPath, *, may_guess: bool) -> str:
    kind = next(kind for kind in _kinds(owner, root) if "properties" in kind)
    known, (*above, key) = kind["properties"], path
    if path in DROPPED:
        return f"is now {DROPPED[path]}"
    if not may_guess:
        return "is an unknown key"
    if not known:
        return f"is an unknown key; {kind['title']} takes none"
    hint = nearest(key, known)
    if "Did you mean" not in hint:
        sections = {
            name: _kinds(node, root)[0].get("properties", {}) for name, node in root["properties"].items()
        }
        owners = [name for name, keys in sections.items() if key in keys and name not in above]
        if above and key in sections:
            hint = f" It belongs at the top of the file, not under {dotted(tuple(above))}"
        elif owners:
            hint = f" It belongs under {' or '.join(owners)}"
        elif key in PARAMETERS:
            hint = " It is searched: its range belongs under space"
    return f"is an unknown key.{hint}"
