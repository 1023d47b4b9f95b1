"""Numbers as text ("8", "1e-4") in the JSON schema, which the loader reads as numbers."""

from __future__ import annotations

from typing import Any

_WHOLE = r"[0-9]+(\.0*)?([eE]\+?[0-9]+)?"
_ANY = r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
_NOT_ZERO = r"(?=[^eE]*[1-9])"


def accept_quoted_numbers(node: Any) -> None:
    """Let every number of a schema be text too, below `node`, in place.

    A pattern cannot compare: of the bounds, text is held to the sign and to being above 0.
    """
    if isinstance(node, list):
        for item in node:
            accept_quoted_numbers(item)
    elif isinstance(node, dict):
        for item in node.values():
            accept_quoted_numbers(item)
        if node.get("type") in ("integer", "number") and "enum" not in node and "const" not in node:
            node["pattern"] = _pattern(node)
            node["type"] = [node["type"], "string"]


def _pattern(node: dict[str, Any]) -> str:
    lowest = node.get("minimum", node.get("exclusiveMinimum", -1))
    above_zero = "exclusiveMinimum" in node or lowest >= 1
    digits = _WHOLE if node["type"] == "integer" else _ANY
    return rf"^\s*{_NOT_ZERO if above_zero else ''}{'' if lowest >= 0 else '-?'}{digits}\s*$"
