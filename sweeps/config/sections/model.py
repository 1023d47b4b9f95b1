"""`model`: the frozen base."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, TypeAdapter

from sweeps.config.field_types import AtLeastOne, Flag, Text
from sweeps.config.sections.base import Section
from sweeps.config.validation import shown

SIZE = r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMbBtT])\s*"
"""A number with a unit, as a regular expression: 8B, 0.5 b."""
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_NUMBER = TypeAdapter[float | None](AtLeastOne | None)


def _size(value: Any) -> float | None:
    try:
        if isinstance(value, str) and (match := re.fullmatch(SIZE, value)):
            value = float(match[1]) * _UNITS[match[2].lower()]
        return _NUMBER.validate_python(value)
    except ValueError:
        raise ValueError(
            f"must be a number of parameters, such as 8.03e9 or 8B; got {shown(value)}"
        ) from None


class ModelSection(Section):
    """A model's hub id or folder, or a mapping; `model: NAME` is short for `model: {name: NAME}`."""

    short_form: ClassVar[str] = "name"

    name: Text
    """Hub id, or a folder with config.json and safetensors weights."""
    revision: Text | None = None
    """Commit, tag or branch of the hub id."""
    trust_remote_code: Flag = False
    """Run Python code that comes with the model."""
    compute_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of the arithmetic on the 4-bit base; auto: bfloat16 where the device supports it."""
    device_map: Literal["auto"] | None = None
    """auto: spread a base that is larger than one GPU over several."""
    size: Annotated[float | None, BeforeValidator(_size)] = None
    """Number of parameters, such as 8.03e9 or 8B; null: counted from the model's config."""
    measure_unquantized: Flag = True
    """Also evaluate the untouched base without quantization, once, where it fits into memory: what a
    fine-tune is worth to those who would otherwise run the base itself."""
