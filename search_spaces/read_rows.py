"""Plain data -> guideline rows, with all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from files_and_text.choices import SCHEDULERS
from files_and_text.value_checker import Limits, ValueChecker
from files_and_text.yaml_lines import KeyPath
from search_spaces.rows import DIRECTIONS, METHODS, PARAMETERS, TOPICS, GuidelineRow, Source, When

_ROW_KEYS = ("value", *(field.name for field in fields(GuidelineRow) if field.name != "id"))
_WHEN_BOUNDS = {"model_size_billions": Limits(above=0), "max_steps": Limits(whole=True, above=0)}
_WHEN_KEYS = ("scenario", "method", *_WHEN_BOUNDS, "train_embeddings")


def row_from_dict(data: Mapping[str, Any]) -> GuidelineRow:
    """The row that `to_dict` wrote; raises InputError."""
    check = ValueChecker()
    body = {key: value for key, value in data.items() if key != "id" and value is not None}
    row = read_row(str(data.get("id")), body, check, (), default_source=None)
    check.raise_if_any()
    assert row is not None
    return row


def read_row(
    row_id: str,
    data: object,
    check: ValueChecker,
    at: KeyPath,
    *,
    default_source: Source | None,
    sources: Mapping[str, Source] | None = None,
    base: GuidelineRow | None = None,
) -> GuidelineRow | None:
    """Read one row of a file; fields that it does not give come from `base`. None after a problem.

    `sources` are the file's named documents. A row without a source gets `default_source`; where it changes a
    row (`base`), the section names that row's source.
    """
    before = len(check.problems)
    body = check.mapping(data, at, _ROW_KEYS)
    given: dict[str, Any] = _read_range(row_id, body, check, at, base)
    if "topic" in body:
        given["topic"] = check.one_of(body["topic"], TOPICS, (*at, "topic"))
    elif base is None:
        check.add(f"the row {row_id!r} needs a topic. Known: {', '.join(TOPICS)}.", at)
    for name, known in (("parameter", PARAMETERS), ("direction", DIRECTIONS)):
        if body.get(name) is not None:
            given[name] = check.one_of(body[name], known, (*at, name))
    if "choices" in body:
        items = enumerate(check.items(body["choices"], (*at, "choices")))
        names = [check.one_of(item, SCHEDULERS, (*at, "choices", index)) for index, item in items]
        given["choices"] = tuple(name for name in names if name is not None)
    if "when" in body:
        given["when"] = _read_when(body["when"], check, (*at, "when"))
    for name in ("condition", "note"):
        if name in body:
            given[name] = check.text(body[name], (*at, name))
    source = _read_source(body.get("source"), check, (*at, "source"), default_source, sources or {}, base)
    if len(check.problems) > before or source is None:
        return None
    given["source"] = source
    return GuidelineRow(id=row_id, **given) if base is None else replace(base, **given)


def _read_range(
    row_id: str, body: Mapping[str, Any], check: ValueChecker, at: KeyPath, base: GuidelineRow | None
) -> dict[str, float | None]:
    if "value" in body:
        if "low" in body or "high" in body:
            check.add(f"the row {row_id!r} gives either value, or low and high; not both.", (*at, "value"))
        value = check.number(body["value"], (*at, "value"))
        return {"low": value, "high": value}
    given = {end: check.number(body[end], (*at, end)) for end in ("low", "high") if end in body}
    low = given.get("low", base.low if base else None)
    high = given.get("high", base.high if base else None)
    if len(given) == 1 and (low is None) != (high is None):
        check.add(f"the row {row_id!r} needs both low and high (or value for a point).", at)
    elif given and low is not None and high is not None and low > high:
        check.add(f"the row {row_id!r} needs low <= high; got {low:g} > {high:g}.", (*at, "low"))
    return given


def _read_when(value: object, check: ValueChecker, at: KeyPath) -> When:
    body = check.mapping(value, at, _WHEN_KEYS)
    read: dict[str, Any] = {}
    if "scenario" in body:
        read["scenario"] = check.text(body["scenario"], (*at, "scenario"))
    if "method" in body:
        read["method"] = check.one_of(body["method"], METHODS, (*at, "method"))
    if "train_embeddings" in body:
        read["train_embeddings"] = check.boolean(body["train_embeddings"], (*at, "train_embeddings"))
    for name, limits in _WHEN_BOUNDS.items():
        if name not in body:
            continue
        bounds = check.mapping(body[name], (*at, name), ("low", "high"))
        for end, bound in bounds.items():
            number = check.number(bound, (*at, name, end), limits)
            read[f"{name}_{end}"] = int(number) if number is not None and limits.whole else number
        low, high = read.get(f"{name}_low"), read.get(f"{name}_high")
        if low is not None and high is not None and low > high:
            check.add(f"{name} needs low <= high; got {low:g} > {high:g}.", (*at, name))
    return When(**read)


def _read_source(
    value: object,
    check: ValueChecker,
    at: KeyPath,
    default: Source | None,
    sources: Mapping[str, Source],
    base: GuidelineRow | None,
) -> Source | None:
    if value is None:
        if default is None:
            check.add("a row needs a source.", at)
        elif base is not None:
            return Source(document=default.document, section=f"laid over: {base.source}", url=base.source.url)
        return default
    if isinstance(value, str):
        return Source(document=value)
    body = check.mapping(value, at, ("name", "document", "section", "url"))
    texts = {key: check.text(item, (*at, key)) for key, item in body.items()}
    if "name" in texts:
        name = check.one_of(texts.pop("name"), list(sources), (*at, "name"))
        if name is None:
            return None
        texts = {"document": sources[name].document, "url": sources[name].url} | texts
    if "document" not in texts:
        check.add("a source needs a document (or the name of one under sources).", at)
        return None
    return Source(**texts)
