"""What a single value of a sweep file may be, with errors a person can act on.

Each `check_*` factory returns a function from the raw value to the value kept; pydantic runs it before its
own check, so that every message is ours. Numbers given as text ("1e-4") are understood; true and false are
never numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from files_and_text.nearest_name import nearest
from files_and_text.yaml_lines import KeyPath

Check = Callable[[Any], Any]


Finding = tuple[KeyPath, str]
"""A key, seen from the value that was checked (empty: the value itself), and what is wrong with it."""


def wrong(message: str, *key: str | int, involves: Iterable[str] = ()) -> PydanticCustomError:
    """The error of one value; `key` leads from the value to the key inside it that the error is about."""
    return all_wrong([(key, message)], involves=involves)


def all_wrong(findings: list[Finding], *, involves: Iterable[str] = ()) -> PydanticCustomError:
    """One error that carries every finding about a value.

    `involves`: the keys beside each other that the rule compares. When one of them is wrong by itself, only
    that is told, because the comparison means nothing then.
    """
    told = "; ".join(": ".join((".".join(map(str, key)), said)) if key else said for key, said in findings)
    # The message travels as context: pydantic would take braces in it for its own.
    return PydanticCustomError(
        "rule", "{message}", {"message": told, "findings": findings, "involves": list(involves)}
    )


def findings_of(error: PydanticCustomError) -> list[Finding]:
    """What `all_wrong` put in."""
    found: list[Finding] = (error.context or {})["findings"]
    return found


def shown(value: object) -> str:
    """The value as the user wrote it, cut to a length that fits a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping of keys" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_whole(low: int | None = None, high: int | None = None, *, none: bool = False) -> Check:
    """A whole number in [low, high]; 1e3 and "1000" are 1000; `none` also lets nothing through."""

    def check(value: Any) -> int | None:
        if value is None and none:
            return None
        number = _number(value)
        if number is None or not number.is_integer():
            raise wrong(f"must be a whole number{_range(low, high)}; got {shown(value)}")
        # Only text and floats go through float: a large int would lose digits.
        whole = value if isinstance(value, int) else int(number)
        if (low is not None and whole < low) or (high is not None and whole > high):
            raise wrong(f"must be a whole number{_range(low, high)}; got {shown(value)}")
        return whole

    return check


def check_real(
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    none: bool = False,
) -> Check:
    """A finite number in [low, high], or open at `above` and `below`; `none` also lets nothing through."""

    def check(value: Any) -> float | None:
        if value is None and none:
            return None
        number = _number(value)
        rule = f"must be a number{_range(low, high, above, below)}"
        if number is None or not math.isfinite(number):
            raise wrong(f"{rule}; got {shown(value)}")
        too_low = (low is not None and number < low) or (above is not None and number <= above)
        too_high = (high is not None and number > high) or (below is not None and number >= below)
        if too_low or too_high:
            raise wrong(f"{rule}; got {shown(value)}")
        return number

    return check


def check_flag() -> Check:
    """true or false; YAML 1.1's yes, no, on and off are understood too."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

    def check(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in words:
            return words[value.strip().lower()]
        raise wrong(f"must be true or false; got {shown(value)}")

    return check


def check_text(*, none: bool = False) -> Check:
    """Text that is not empty."""

    def check(value: Any) -> str | None:
        if value is None and none:
            return None
        if isinstance(value, str) and value.strip():
            return value
        quote = "; put it in quotes" if isinstance(value, int | float) else ""
        raise wrong(f"must be text; got {shown(value)}{quote}")

    return check


def check_one_of(
    known: Iterable[str], *, aliases: Mapping[str, str | None] | None = None, none: bool = False
) -> Check:
    """One of the known names, or another spelling of one (`aliases`)."""
    names = tuple(known)
    others = dict(aliases or {})

    def check(value: Any) -> str | None:
        if value is None and none:
            return None
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, str) and value in others:
            return others[value]
        # Other spellings may be suggested, but are not listed.
        hint, _, _ = nearest(value, (*names, *others)).partition(" Known:")
        raise wrong(f"must be a known name; got {shown(value)}.{hint} Known: {', '.join(names)}.")

    return check


def check_list_of(check_item: Check, *, what: str) -> Check:
    """A list whose items all pass `check_item`, as a tuple; `what` names the items in errors."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise wrong(f"must be a list of {what}; got {shown(value)}")
        items: list[Any] = []
        found: list[Finding] = []
        for index, item in enumerate(value):
            try:
                items.append(check_item(item))
            except PydanticCustomError as error:
                found += [((index, *key), said) for key, said in findings_of(error)]
        if found:
            raise all_wrong(found)
        return tuple(items)

    return check


def check_mapping(checks: dict[str, Check], *, what: str) -> Check:
    """A mapping with keys among `checks`, each value passing its own; `what` names the owner in errors."""

    def check(value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise wrong(f"must be a mapping of keys; got {shown(value)}")
        kept: dict[str, Any] = {}
        found: list[Finding] = []
        for key, item in value.items():
            if key not in checks:
                known = nearest(key, checks) if checks else " It takes none."
                found.append(((key,), f"is not known to {what}.{known}"))
                continue
            try:
                kept[key] = checks[key](item)
            except PydanticCustomError as error:
                found += [((key, *deeper), said) for deeper, said in findings_of(error)]
        if found:
            raise all_wrong(found)
        return kept

    return check


def _number(value: Any) -> float | None:
    """The number that a value stands for; None when it stands for none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _range(
    low: float | None, high: float | None, above: float | None = None, below: float | None = None
) -> str:
    lower = f"at least {low:g}" if low is not None else f"above {above:g}" if above is not None else ""
    upper = f"at most {high:g}" if high is not None else f"below {below:g}" if below is not None else ""
    both = " and ".join(part for part in (lower, upper) if part)
    return f", {both}" if both else ""
