"""The base class of the sections of a sweep file."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen mapping of known keys. With nothing under it (`lora:` alone) it means its defaults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )
    short_form: ClassVar[str | None] = None
    """The key that a text in the section's place stands for: `model: NAME` is `model: {name: NAME}`."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, data: Any) -> Any:
        if isinstance(data, str) and cls.short_form is not None:
            return {cls.short_form: data}
        return {} if data is None else data
