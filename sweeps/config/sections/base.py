"""The base of every part of a sweep file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from sweeps.config.fields import shown, wrong


class Section(BaseModel):
    """A frozen mapping of known keys; one with nothing under it stands for its defaults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, data: Any) -> Any:
        if data is None:
            # `lora:` with every key below it commented out.
            return {}
        if not isinstance(data, dict | cls):
            raise wrong(f"must be a mapping of keys; got {shown(data)}")
        return data
