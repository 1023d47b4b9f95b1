"""Python literals, comments and file heads for exported files. Users' names cannot break out of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from files_and_text.yaml_lines import dump_yaml
from results.answer.answer import Loss
from results.export.config_values import Config, section
from results.text.gaps import loss_text, short_loss


def python_literal(value: object) -> str:
    """Plain data as Python source, with double quotes as formatters write them."""
    if isinstance(value, str):
        # Editors break lines at U+2028 and the like, and JSON's escapes differ from Python's.
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else ascii(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(python_literal(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{python_literal(str(key))}: {python_literal(item)}" for key, item in value.items())
            + "}"
        )
    return repr(value)


def multiline_literal(value: str | None) -> str:
    """Text of several lines as one literal a line, so that it can be read."""
    if value is None or "\n" not in value.rstrip("\n"):
        return python_literal(value)
    *lines, last = [python_literal(line) for line in value.split("\n")]
    # The line break goes before the closing quote.
    shown = [f"    {line[:-1]}\\n{line[-1]}" for line in lines]
    return "\n".join(["(", *shown, *([f"    {last}"] if not value.endswith("\n") else []), ")"])


def python_dict(values: Mapping[str, Any]) -> str:
    """A Python dict with an entry on each line."""
    lines = [f"    {python_literal(name)}: {python_literal(value)}," for name, value in values.items()]
    return "\n".join(["{", *lines, "}"])


def one_line(text: object) -> str:
    """Text on one line that can stand inside a comment or docstring."""
    shown = str(text).replace("\\", "/").replace('"""', "'''")
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def wrap_text(text: str, *, first: str = "", rest: str = "  ") -> str:
    """A paragraph of at most 100 characters a line."""
    return textwrap.fill(
        one_line(text),
        100,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def bullet_list(lines: Sequence[str]) -> str:
    """A bulleted list for a docstring."""
    return "\n".join([wrap_text(line, first="- ", rest="  ") for line in lines] or ["- nothing"])


def provenance_lines(config: Config) -> list[str]:
    """Which trial of which study this is, what it reached, and with which versions; a line each."""
    sweep = section(config, "sweep")
    versions = ", ".join(f"{name} {version}" for name, version in section(config, "versions").items())
    return [
        f"Best config of sweep {one_line(sweep.get('name'))}, trial {sweep.get('trial')}, study "
        f"{one_line(sweep.get('study_hash'))}.",
        f"Evaluation loss there: {best_loss_text(config)} nats per token; untouched base: "
        f"{base_loss_text(config)}{merged_loss_text(config)}.",
        f"Measured with: {one_line(versions or 'versions not recorded')}.",
    ]


def base_loss_text(config: Config) -> str:
    """`3.824`, or `3.824, not quantized 3.561` where that was measured too."""
    result = section(config, "result")
    text, unquantized = short_loss(result.get("base_eval_loss")), result.get("base_unquantized_eval_loss")
    return text if unquantized is None else f"{text}, not quantized {short_loss(unquantized)}"


def merged_loss_text(config: Config) -> str:
    """`; merged in bfloat16 6.040`; "" where the best was not merged and measured."""
    result = section(config, "result")
    if (loss := result.get("merged_eval_loss")) is None:
        return ""
    return f"; merged in {one_line(result.get('merged_dtype'))} {short_loss(loss)}"


def best_loss_text(config: Config) -> str:
    """`5.432`, or `5.432 (5.41 to 5.45, 3 seeds)` where the best was run again on new seeds."""
    result = section(config, "result")
    if result.get("eval_loss") is None:
        return "unknown"
    return loss_text(
        Loss(
            value=result["eval_loss"],
            low=result.get("eval_loss_low"),
            high=result.get("eval_loss_high"),
            seeds=result.get("seeds") or 0,
        )
    )


def settings_file_text(
    title: str, config: Config, keys: Mapping[str, Any], lossy: Sequence[str], notes: Sequence[str] = ()
) -> str:
    """A YAML settings file; its head says where the settings come from and what they leave out."""
    head = [title, *provenance_lines(config), *notes, *(f"Not expressed: {one_line(line)}" for line in lossy)]
    return "".join(f"# {one_line(line)}\n" for line in head) + dump_yaml(dict(keys))
