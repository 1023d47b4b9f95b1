"""The user's own ranges: read with all their problems, then laid over what the tables gave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from files_and_text.checks import Checks
from files_and_text.choices import SCHEDULERS
from files_and_text.nearest_name import nearest
from files_and_text.yaml_lines import KeyPath
from search_spaces.space import Dimension, Value

KEYS = ("low", "high", "log", "step", "choices", "value")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What any range of a dimension must keep to."""

    kind: str
    low: float = 0.0
    low_allowed: bool = True
    high: float = math.inf
    high_allowed: bool = True

    def complaint(self, value: float) -> str | None:
        """The rule that a value breaks; None when it breaks none."""
        if self.kind == "int" and value != int(value):
            return "must be a whole number"
        if value < self.low or (value == self.low and not self.low_allowed):
            return f"must be {'at least' if self.low_allowed else 'above'} {self.low:g}"
        if value > self.high or (value == self.high and not self.high_allowed):
            return f"must be {'at most' if self.high_allowed else 'below'} {self.high:g}"
        return None


RULES: dict[str, Rule] = {
    "learning_rate": Rule(kind="float", low_allowed=False, high=1.0),
    "embedding_lr_ratio": Rule(kind="float", low_allowed=False),
    "lr_scheduler_type": Rule(kind="categorical"),
    # At 1 nothing but warmup is left, and transformers reads a warmup of 1 as one step.
    "warmup_ratio": Rule(kind="float", high=1.0, high_allowed=False),
    "lora_r": Rule(kind="int", low=1),
    "lora_alpha": Rule(kind="int", low=1),
    "lora_dropout": Rule(kind="float", high=1.0, high_allowed=False),
    "per_device_train_batch_size": Rule(kind="int", low=1),
    "weight_decay": Rule(kind="float", high=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Override:
    """One dimension as the user wants it; None where the tables' own holds."""

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: float | None = None
    choices: tuple[Value, ...] | None = None
    value: Value | None = None


def read_overrides(overrides: object, checks: Checks, at: KeyPath) -> dict[str, Override]:
    """Read the `space:` mapping; what is wrong goes to `checks` and is left out."""
    result = {}
    for name, body in checks.mapping(overrides, at, RULES).items():
        before = len(checks.problems)
        here = (*at, name)
        if not isinstance(body, Mapping):
            checks.add(
                f"{name} must be a mapping with low and high, or choices, or value; got {body!r}. "
                f"To fix it write {{value: ...}}.",
                here,
            )
            continue
        override = _read_one(name, checks.mapping(body, here, KEYS), checks, here)
        if len(checks.problems) == before:
            result[name] = override
    return result


def _read_one(name: str, body: Mapping[str, Any], checks: Checks, at: KeyPath) -> Override:
    by_name = RULES[name].kind == "categorical"
    ranged = [key for key in ("low", "high", "log", "step") if key in body]
    ways = (["choices"] if "choices" in body else []) + (["value"] if "value" in body else [])
    if len(ways) + bool(ranged) > 1:
        given = ", ".join([*ranged, *ways])
        checks.add(f"{name} takes a range (low, high), or choices, or value, and only one; got {given}.", at)
    elif not ways and not ranged:
        checks.add(f"{name} is empty: give low and high, or choices, or value.", at)
    if ranged and by_name:
        checks.add(f"{name} is chosen by name and has no range: give choices or value.", at)
        return Override()
    choices = value = None
    if "choices" in body:
        choices = _read_choices(name, body["choices"], checks, (*at, "choices"))
    if "value" in body:
        value = _read_value(name, body["value"], checks, (*at, "value"))
    numbers = {
        key: _read_value(name, body[key], checks, (*at, key)) for key in ("low", "high") if key in body
    }
    low, high = (_number(numbers.get(key)) for key in ("low", "high"))
    log = checks.boolean(body["log"], (*at, "log")) if "log" in body else None
    step = None
    if "step" in body:
        step = checks.number(body["step"], (*at, "step"))
        if step is not None and step <= 0:
            checks.add(f"the step of {name} must be above 0; got {step:g}.", (*at, "step"))
        elif step is not None and RULES[name].kind == "int" and step != int(step):
            checks.add(f"the step of {name} must be a whole number; got {step:g}.", (*at, "step"))
    if low is not None and high is not None and low >= high:
        checks.add(
            f"{name} needs low < high; got low {low:g} and high {high:g}"
            + (" (write value for a fixed one)." if low == high else "."),
            (*at, "low"),
        )
    if log and low is not None and low <= 0 and RULES[name].low_allowed:
        checks.add(f"{name} on a log scale needs low > 0; got {low:g}.", (*at, "low"))
    return Override(low=low, high=high, log=log, step=step, choices=choices, value=value)


def _read_choices(name: str, value: object, checks: Checks, at: KeyPath) -> tuple[Value, ...] | None:
    if not isinstance(value, list | tuple):
        checks.add(f"the choices of {name} must be a list; got {value!r}.", at)
        return None
    if not value:
        checks.add(f"the choices of {name} must not be empty.", at)
    read: list[Value] = []
    for index, item in enumerate(value):
        choice = _read_value(name, item, checks, (*at, index))
        if choice is not None and choice in read:
            checks.add(f"the choices of {name} must be distinct; {item!r} stands twice.", (*at, index))
        elif choice is not None:
            read.append(choice)
    return tuple(read)


def _read_value(name: str, value: object, checks: Checks, at: KeyPath) -> Value | None:
    rule = RULES[name]
    if rule.kind == "categorical":
        if isinstance(value, str) and value in SCHEDULERS:
            return value
        shown = "nothing" if value is None else repr(value)
        checks.add(f"{name}: {shown} is not a scheduler.{nearest(value, SCHEDULERS)}", at)
        return None
    number = checks.number(value, at)
    if number is None:
        return None
    complaint = rule.complaint(number)
    if complaint is not None:
        checks.add(f"{name} {complaint}; got {number:g}.", at)
        return None
    return int(number) if rule.kind == "int" else number


def _number(value: Value | None) -> float | None:
    return None if value is None or isinstance(value, str) else value


def apply_override(base: Dimension, override: Override, checks: Checks, at: KeyPath) -> Dimension:
    """The dimension within the user's range; the default moves to the nearest value that the range allows.

    An end that the user leaves out stays the tables' own. A contradiction with it goes to `checks`, and the
    dimension comes back unchanged, as it does when the user repeats the tables' own range.
    """
    result = _overridden(base, override, checks, at)
    if result == base:
        return base
    return replace(result, note="; ".join(part for part in (base.note, "range given by the user") if part))


def _overridden(base: Dimension, override: Override, checks: Checks, at: KeyPath) -> Dimension:
    kind = RULES[base.name].kind
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
    if isinstance(override.value, str):
        return replace(base, choices=(override.value,), default=override.value)
    if override.value is not None:
        value = override.value
        return replace(
            base,
            kind=kind,
            low=value,
            high=value,
            default=value,
            log=False,
            step=None,
            choices=None,
        )
    numbers = [choice for choice in base.choices or () if not isinstance(choice, str)]
    low = override.low if override.low is not None else (min(numbers) if numbers else base.low)
    high = override.high if override.high is not None else (max(numbers) if numbers else base.high)
    log = override.log if override.log is not None else base.log and override.step is None
    assert low is not None and high is not None  # noqa: PT018  (a base without choices has both)
    before = len(checks.problems)
    if low >= high:
        missing = "high" if override.high is None else "low"
        given = f"low {low:g} and high {high:g}"
        checks.add(f"{base.name} needs low < high; got {given}, its {missing} end from the tables.", at)
    if log and low <= 0:
        checks.add(f"{base.name} on a log scale needs low > 0; got {low:g}. Give a low end.", at)
    if log and override.step is not None:
        checks.add(f"{base.name} takes a step or a log scale, not both.", at)
    if override.step is not None and override.step > high - low:
        checks.add(f"the step of {base.name} must fit between low and high; got {override.step:g}.", at)
    if len(checks.problems) > before:
        return base
    default = _inside(base.default, low, high, override.step, kind)
    return replace(
        base,
        kind=kind,
        low=low,
        high=high,
        log=log,
        step=override.step,
        choices=None,
        default=default,
    )


def nearest_value(wanted: Value, choices: tuple[Value, ...]) -> Value:
    """The choice nearest to the wanted value, in log where both are above 0; the first one for names."""
    if wanted in choices:
        return wanted
    numbers = [choice for choice in choices if not isinstance(choice, str)]
    if isinstance(wanted, str) or not numbers:
        return choices[0]
    aim = wanted
    if aim > 0 and min(numbers) > 0:
        return min(numbers, key=lambda choice: abs(math.log(choice / aim)))
    return min(numbers, key=lambda choice: abs(choice - aim))


def _inside(wanted: Value, low: float, high: float, step: float | None, kind: str) -> Value:
    value = low if isinstance(wanted, str) else min(max(wanted, low), high)
    if step is not None:
        value = low + min(round((value - low) / step), math.floor((high - low) / step + 1e-9)) * step
    return int(value) if kind == "int" else float(value)
