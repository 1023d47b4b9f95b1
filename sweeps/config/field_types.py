"""Types of single values, with pydantic's constraints; `validation.py` puts its errors into words.

Quoted numbers ("1e-4") are read as numbers. true and false are never numbers, and 1 is never true.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from sweeps.config.validation import unknown_name, validated


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("not_a_number", "not a number")
    try:
        return float(value) if isinstance(value, str) and not value.strip().isdecimal() else value
    except ValueError:
        return value


def flag(value: Any) -> Any:
    """The words of YAML 1.1 for true and false as those; anything else as it is."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


NUMBER = BeforeValidator(_number)
"""Stands after the constraints of a number: Annotated[int, Field(ge=2), NUMBER]."""

PositiveInt = Annotated[int, Field(ge=1), NUMBER]
NonNegativeInt = Annotated[int, Field(ge=0), NUMBER]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), NUMBER]
Percent = Annotated[int, Field(ge=1, le=100), NUMBER]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False), NUMBER]
Share = Annotated[float, Field(ge=0, lt=1), NUMBER]
Flag = Annotated[StrictBool, BeforeValidator(flag)]
Text = Annotated[str, Field(strict=True, pattern=r"\S")]


def one_of(names: Iterable[str], aliases: Mapping[str, str | None] | None = None) -> BeforeValidator:
    """One of the names, or another spelling of one; errors may suggest an alias, but list only the names."""
    known, others = tuple(names), dict(aliases or {})

    def check(value: Any) -> Any:
        if value is None or value in known:
            return value
        if isinstance(value, str) and value in others:
            return others[value]
        raise ValueError(unknown_name(value, known, also=others))

    return BeforeValidator(check)


def mapping_of(
    what: str, types: Mapping[str, Any], rule: AfterValidator | None = None
) -> Callable[[Any], Any]:
    """Checks a mapping of options, each of which may be left out; `what` names their owner in errors."""

    @functools.cache
    def adapter() -> TypeAdapter[Any]:  # built when needed, which keeps the import fast
        typed_dict: Any = TypedDict
        options = typed_dict(what, types, total=False)
        options.__pydantic_config__ = ConfigDict(extra="forbid", title=what)
        return TypeAdapter(options if rule is None else Annotated[options, rule])

    return lambda value: validated(adapter(), {} if value is None else value)
