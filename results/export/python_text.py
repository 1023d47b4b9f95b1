"""Plain data as Python, comments and docstrings. Names come from users and must stay inside of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from files_and_text.numbers import loss
from files_and_text.yaml_lines import dump_yaml
from results.export.facts import Config, section


def literal(value: object) -> str:
    """A Python literal of plain data, with double quotes as formatters write them."""
    if isinstance(value, str):
        # U+2028 and its like are line breaks to editors, and JSON's escapes are not Python's.
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else ascii(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(str(key))}: {literal(item)}" for key, item in value.items()) + "}"
    return repr(value)


def literal_text(value: str | None) -> str:
    """The same for text of many lines: one literal a line, so that it can be read."""
    if value is None or "\n" not in value.rstrip("\n"):
        return literal(value)
    *lines, last = [literal(line) for line in value.split("\n")]
    # The line break goes before the closing quote.
    shown = [f"    {line[:-1]}\\n{line[-1]}" for line in lines]
    return "\n".join(["(", *shown, *([f"    {last}"] if not value.endswith("\n") else []), ")"])


def mapping_lines(values: Mapping[str, Any]) -> str:
    """A Python mapping with an entry on each line."""
    lines = [f"    {literal(name)}: {literal(value)}," for name, value in values.items()]
    return "\n".join(["{", *lines, "}"])


def flat(text: object) -> str:
    """Text on one line that can stand inside a comment or docstring."""
    shown = str(text).replace("\\", "/").replace('"""', "'''")
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def wrapped(text: str, *, first: str = "", rest: str = "  ") -> str:
    """A paragraph of at most 100 characters a line."""
    return textwrap.fill(
        flat(text),
        100,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def listed(lines: Sequence[str]) -> str:
    """A list for a docstring or a page."""
    return "\n".join([wrapped(line, first="- ", rest="  ") for line in lines] or ["- nothing"])


def provenance(config: Config) -> list[str]:
    """Which trial of which study this is, what it reached, and with which versions; a line each."""
    sweep, result = section(config, "sweep"), section(config, "result")
    versions = ", ".join(f"{name} {version}" for name, version in section(config, "versions").items())
    return [
        f"Best config of sweep {flat(sweep.get('name'))}, trial {sweep.get('trial')}, study "
        f"{flat(sweep.get('study_hash'))}.",
        f"Evaluation loss there: {loss(result.get('eval_loss'))} nats per token (untouched base: "
        f"{loss(result.get('base_eval_loss'))}).",
        f"Measured with: {flat(versions or 'versions not recorded')}.",
    ]


def settings_yaml(
    title: str, config: Config, keys: Mapping[str, Any], lossy: Sequence[str], notes: Sequence[str] = ()
) -> str:
    """A YAML file of settings under a head that says where they come from and what they leave out."""
    head = [title, *provenance(config), *notes, *(f"Not expressed: {flat(line)}" for line in lossy)]
    return "".join(f"# {flat(line)}\n" for line in head) + dump_yaml(dict(keys))
