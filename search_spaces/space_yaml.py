"""A search space as the commented `space:` block of a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from files_and_text.numbers import number_range, value_text
from files_and_text.yaml_lines import dump_yaml
from search_spaces.build_space import space_for
from search_spaces.dimension import Dimension
from search_spaces.from_rows.on_request import ON_REQUEST
from search_spaces.from_rows.sourced_dimension import Run
from search_spaces.guidelines import Guidelines, load_guidelines
from search_spaces.search_space import SearchSpace


def commented_space_yaml(
    space: SearchSpace,
    guidelines: Guidelines | None = None,
    *,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The `space:` block of a sweep file: every range below a comment with the rows it comes from.

    Read as overrides, the block gives the same space. `given` are overrides that the space was built with,
    which are written as they are. Dimensions of ON_REQUEST that the space lacks follow
    as comments.
    """
    tables = load_guidelines() if guidelines is None else guidelines
    lines = ["space:"]
    for dimension in space.dimensions:
        own = (given or {}).get(dimension.name)
        if own is None:
            lines += [f"  # {text}" for text in _explained(dimension, space, tables)]
            lines.append(f"  {dimension.name}: {_range(dimension)}")
            continue
        # `why` says below what the note would say again.
        plain = replace(dimension, note=dimension.note.removesuffix(str(own.get("why", ""))).rstrip("; "))
        lines += [f"  # {text}" for text in _explained(plain, space, tables)]
        lines.append(f"  {dimension.name}:")
        lines += [f"    {line}" for line in dump_yaml(dict(own)).splitlines()]
    missing = [name for name in ON_REQUEST if name not in space]
    if missing:
        lines.append("  # On request (remove the # to search it):")
        run = {field.name: space.context[field.name] for field in fields(Run)}
        full = space_for(**run, include=missing, guidelines=tables)
        for name in missing:
            lines += [f"  # {text}" for text in _explained(full[name], full, tables)]
            lines.append(f"  # {name}: {_range(full[name])}")
    return "\n".join(lines) + "\n"


def _range(dimension: Dimension) -> str:
    if dimension.fixed:
        return dump_yaml({"value": dimension.default}, one_line=True)
    if dimension.kind == "categorical":
        return dump_yaml({"choices": list(dimension.choices or ())}, one_line=True)
    body: dict[str, object] = {"low": dimension.low, "high": dimension.high}
    body |= {"log": True} if dimension.log else {}
    body |= {} if dimension.step is None else {"step": dimension.step}
    return dump_yaml(body, one_line=True)


def _explained(dimension: Dimension, space: SearchSpace, tables: Guidelines) -> list[str]:
    head = f"{dimension.name}: default {value_text(dimension.default)}"
    if dimension.guideline_low is not None and dimension.guideline_high is not None:
        head += f", the tables span {number_range(dimension.guideline_low, dimension.guideline_high)}"
        factor = space.context.get("widen", {}).get(dimension.name)
        if factor and dimension.name not in space.context.get("overridden", ()):
            head += f", widened by a factor of {factor:g}"
    lines = [head + "."]
    for row_id in dimension.rows:
        if row_id not in tables:
            lines.append(f"  {row_id}")
            continue
        row = tables[row_id]
        parameter = "" if row.parameter == dimension.name else f"{row.parameter} "
        lines.append(f"  {row_id}: {parameter}{row.value_text} ({row.condition})")
    if dimension.active_when is not None:
        deciding, values = dimension.active_when
        lines.append(f"  Only when {deciding} is {' or '.join(str(value) for value in values)}.")
    if dimension.note:
        lines.append(f"  Note: {dimension.note}.")
    # A line break in a document's words would end the comment.
    return [" ".join(line.splitlines()) for line in lines]
