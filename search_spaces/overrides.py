"""The user's own ranges (`space:` of a sweep file), which replace those from the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from files_and_text.choices import SCHEDULERS
from files_and_text.nearest_name import nearest
from files_and_text.value_checker import Limits, ValueChecker
from files_and_text.yaml_lines import KeyPath
from search_spaces.dimension import Dimension, Value

_KEYS = ("low", "high", "log", "step", "choices", "value", "try", "why")

# What every value of a dimension must keep to; a scheduler is chosen by name.
_LIMITS: dict[str, Limits | None] = {
    "learning_rate": Limits(above=0, at_most=1),
    "embedding_lr_ratio": Limits(above=0),
    "lr_scheduler_type": None,
    # At 1 the whole run is warmup, and transformers reads a warmup of 1 as one step.
    "warmup_ratio": Limits(at_least=0, below=1),
    "lora_r": Limits(whole=True, at_least=1),
    "lora_alpha": Limits(whole=True, at_least=1),
    "lora_dropout": Limits(at_least=0, below=1),
    "per_device_train_batch_size": Limits(whole=True, at_least=1),
    "weight_decay": Limits(at_least=0, at_most=1),
}


@dataclass(frozen=True, kw_only=True)
class Override:
    """What the user gives for one dimension; None where the rows' own holds."""

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: float | None = None
    choices: tuple[Value, ...] | None = None
    value: Value | None = None
    first: tuple[Value, ...] = ()
    """Values of `try`: tried early, everything else as in the guideline default."""
    why: str = ""
    """Where the range comes from, in the user's words."""


def read_overrides(overrides: object, check: ValueChecker, at: KeyPath) -> dict[str, Override]:
    """Read the `space:` mapping; a dimension with a problem is left out."""
    result = {}
    for name, body in check.mapping(overrides, at, _LIMITS).items():
        here = (*at, name)
        if not isinstance(body, Mapping):
            check.add(
                f"{name} must be a mapping with low and high, or choices, or value; got {body!r}. "
                f"For a fixed value write {{value: ...}}.",
                here,
            )
            continue
        before = len(check.problems)
        override = _read_override(name, check.mapping(body, here, _KEYS), check, here)
        if len(check.problems) == before:
            result[name] = override
    return result


def _read_override(name: str, body: Mapping[str, Any], check: ValueChecker, at: KeyPath) -> Override:
    range_keys = [key for key in ("low", "high", "log", "step") if key in body]
    other_keys = [key for key in ("choices", "value") if key in body]
    if len(other_keys) + bool(range_keys) > 1:
        given = ", ".join([*range_keys, *other_keys])
        check.add(f"{name} takes a range (low, high), or choices, or value, and only one; got {given}.", at)
    elif not other_keys and not range_keys and "try" not in body:
        check.add(f"{name} is empty: give low and high, or choices, or value.", at)
    limits = _LIMITS[name]
    if range_keys and limits is None:
        check.add(f"{name} is chosen by name and has no range: give choices or value.", at)
        return Override()
    choices = None
    if "choices" in body:
        choices = _read_choices(name, body["choices"], check, (*at, "choices"))
    value = _read_value(name, body["value"], check, (*at, "value")) if "value" in body else None
    low, high = (
        check.number(body[key], (*at, key), limits) if key in body else None for key in ("low", "high")
    )
    log = check.boolean(body["log"], (*at, "log")) if "log" in body else None
    step = None
    if "step" in body:
        above_zero = Limits(whole=limits is not None and limits.whole, above=0)
        step = check.number(body["step"], (*at, "step"), above_zero)
    if low is not None and high is not None and low >= high:
        hint = " (write value for a fixed one)" if low == high else ""
        check.add(f"{name} needs low < high; got low {low:g} and high {high:g}{hint}.", (*at, "low"))
    if log and low == 0:
        check.add(f"{name} on a log scale needs low > 0; got 0.", (*at, "low"))
    first = _read_choices(name, body["try"], check, (*at, "try")) if "try" in body else ()
    why = check.text(body["why"], (*at, "why")) if "why" in body else ""
    return Override(
        low=low, high=high, log=log, step=step, choices=choices, value=value, first=first or (), why=why
    )


def _read_choices(name: str, value: object, check: ValueChecker, at: KeyPath) -> tuple[Value, ...] | None:
    before = len(check.problems)
    items = check.items(value, at)
    if not items and len(check.problems) == before:
        check.add(f"the {at[-1] if at[-1] == 'try' else 'choices'} of {name} must not be empty.", at)
    read: list[Value] = []
    for index, item in enumerate(items):
        choice = _read_value(name, item, check, (*at, index))
        if choice is not None and choice in read:
            check.add(f"the choices of {name} must be distinct; {item!r} is given twice.", (*at, index))
        elif choice is not None:
            read.append(choice)
    return tuple(read)


def _read_value(name: str, value: object, check: ValueChecker, at: KeyPath) -> Value | None:
    limits = _LIMITS[name]
    if limits is not None:
        number = check.number(value, at, limits)
        return int(number) if number is not None and limits.whole else number
    if isinstance(value, str) and value in SCHEDULERS:
        return value
    shown = "nothing" if value is None else repr(value)
    check.add(f"{name}: {shown} is not a scheduler.{nearest(value, SCHEDULERS)}", at)
    return None


def apply_override(
    base: Dimension, override: Override, check: ValueChecker, at: KeyPath, *, about_high: str = ""
) -> Dimension:
    """The dimension within the user's range; the default moves to the nearest value that the range allows.

    An end that the user leaves out stays the rows' own. Where that is a contradiction, `check` gets a problem
    and the dimension comes back unchanged, as it does when the user repeats the rows' own range.
    `about_high`: the end of its note that holds only while the upper end is the rows' own.
    """
    result = _overridden(base, override, check, at)
    for value in override.first:
        if not result.contains(value):
            check.add(f"{base.name} tries {value!r}, which its range does not hold.", (*at, "try"))
    if result == base:
        return base
    why = override.why or "range given by the user"
    note = base.note
    if result.high != base.high:
        note = note.removesuffix(about_high).removesuffix("; ")
    return replace(result, note="; ".join(part for part in (note, why) if part))


def _overridden(base: Dimension, override: Override, check: ValueChecker, at: KeyPath) -> Dimension:
    limits = _LIMITS[base.name]
    kind = "categorical" if limits is None else "int" if limits.whole else "float"
    if override.choices is not None:
        return replace(
            base,
            low=None,
            high=None,
            log=False,
            step=None,
            kind="categorical",
            choices=override.choices,
            default=nearest_value(base.default, override.choices),
        )
    value = override.value
    if isinstance(value, str):
        return replace(base, choices=(value,), default=value)
    if value is not None:
        return replace(
            base, kind=kind, low=value, high=value, default=value, log=False, step=None, choices=None
        )
    low, high = base.low, base.high
    if base.choices:
        numbers = [choice for choice in base.choices if not isinstance(choice, str)]
        low, high = min(numbers), max(numbers)
    low = low if override.low is None else override.low
    high = high if override.high is None else override.high
    log = override.log if override.log is not None else base.log and override.step is None
    assert low is not None and high is not None  # noqa: PT018  (a base without choices has both)
    before = len(check.problems)
    if low >= high:
        missing = "high" if override.high is None else "low"
        given = f"low {low:g} and high {high:g}"
        check.add(f"{base.name} needs low < high; got {given}, its {missing} end from the tables.", at)
    if log and low <= 0:
        check.add(f"{base.name} on a log scale needs low > 0; got {low:g}. Give a low end.", at)
    if log and override.step is not None:
        check.add(f"{base.name} takes a step or a log scale, not both.", at)
    if override.step is not None and override.step > high - low:
        check.add(f"the step of {base.name} must fit between low and high; got {override.step:g}.", at)
    if len(check.problems) > before:
        return base
    default = _inside(base.default, low, high, override.step, kind)
    return replace(
        base, kind=kind, low=low, high=high, log=log, step=override.step, choices=None, default=default
    )


def nearest_value(wanted: Value, choices: tuple[Value, ...]) -> Value:
    """The choice nearest to the wanted value, in log where all are above 0; the first one for names."""
    if wanted in choices:
        return wanted
    numbers = [choice for choice in choices if not isinstance(choice, str)]
    if isinstance(wanted, str) or not numbers:
        return choices[0]
    if wanted > 0 and min(numbers) > 0:
        return min(numbers, key=lambda choice: abs(math.log(choice / wanted)))
    return min(numbers, key=lambda choice: abs(choice - wanted))


def _inside(wanted: Value, low: float, high: float, step: float | None, kind: str) -> Value:
    value = low if isinstance(wanted, str) else min(max(wanted, low), high)
    if step is not None:
        value = low + min(round((value - low) / step), math.floor((high - low) / step + 1e-9)) * step
    return int(value) if kind == "int" else float(value)
