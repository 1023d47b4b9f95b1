"""The text of a new sweep file: every key with its meaning, those that are set with their reason."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.config.reference.keys import REQUIRED, SECTIONS, Key, keys_of, yaml_value

WIDTH = 100
SCHEMA_FILE = ".sweeps-schema.json"
"""Written beside the sweep file, for editors."""
GROUPS: dict[str, tuple[str, ...]] = {
    "What is trained": ("name", "model", "data", "scenario", "guidelines", "method", "train_embeddings"),
    "One trial": ("training", "space", "lora", "metric"),
    "The search": ("trials", "search"),
    "Where it runs, and what it keeps": (
        *("seats", "workers", "gpus_per_worker", "output", "storage", "reliability", "tracking"),
    ),
}
"""All keys at the top of a sweep file."""
INSTEAD_OF_REQUIRED = {"metric.name": "exact_match"}
"""Examples for keys that are required only where their section is used."""


@dataclass(frozen=True, kw_only=True)
class SetKey:
    """The value of a key, and why it has it."""

    value: Any
    reason: str = ""


def file_text(
    values: Mapping[str, SetKey], *, title: str, space: str, space_reason: str, schema: bool
) -> str:
    """The file; `values` by dotted key. Keys without a value follow as comments with their defaults.

    `space` is the block `space:` as YAML. With `schema`, editors find the JSON schema beside the file.
    """
    lines = [f"# yaml-language-server: $schema={SCHEMA_FILE}"] if schema else []
    lines += _comment(title)
    lines += _comment(
        "Keys behind a # have the value shown: remove the # to change one. Relative paths start from this "
        "file's folder. `sweeps plan` checks the file, `sweeps run` runs it."
    )
    top = {key.name: key for key in keys_of("")}
    for title, names in GROUPS.items():
        lines += ["", f"# --- {title} ".ljust(WIDTH, "-")]
        for name in names:
            if name == "space":
                lines += ["", *_comment(space_reason), *space.rstrip("\n").splitlines()]
            elif name in SECTIONS:
                lines += ["", *_comment(top[name].meaning), f"{name}:"]
                for key in keys_of(name):
                    lines += _key_lines(key, values.get(key.path), "  ")
                lines.append("")
            else:
                lines += _key_lines(top[name], values.get(name), "")
    text = "\n".join(lines).rstrip()
    return re.sub("\n{3,}", "\n\n", text) + "\n"


def _key_lines(key: Key, given: SetKey | None, indent: str) -> Iterator[str]:
    meaning = short(key.meaning)
    if given is not None:
        yield from _comment(meaning, indent)
        yield from _comment(given.reason, indent)
        yield f"{indent}{key.name}: {yaml_value(given.value)}"
        return
    default = INSTEAD_OF_REQUIRED.get(key.path, key.default_text)
    line = f"{indent}#{key.name}: {default}"
    if key.default is REQUIRED and key.path not in INSTEAD_OF_REQUIRED:
        raise ValueError(f"{key.path} is required")
    if len(line) + len(meaning) + 4 <= WIDTH:
        yield f"{line}  # {meaning}"
        return
    yield from _comment(meaning, indent)
    yield line


def short(meaning: str) -> str:
    """The first sentence, without its end where it is long: what follows a second semicolon."""
    first = meaning.partition(". ")[0].rstrip(".")
    parts = first.split("; ")
    return ("; ".join(parts[:2]) if len(first) > WIDTH else first) + "."


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
