"""`metric`: a score of the answers that a trial gives, measured beside the loss."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from files_and_text.choices import BUILT_IN_METRICS
from files_and_text.nearest_name import nearest
from sweeps.config.field_types import Flag, PositiveInt, Text
from sweeps.config.sections.base import Section
from sweeps.config.validation import shown

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_TASK = re.compile(r"lm_eval:[^:\s]+(:[^:\s]+)?")


def _is_task(name: str) -> bool:
    return name.startswith("lm_eval:")


def _name(text: str) -> str:
    if text in BUILT_IN_METRICS or (_TASK if _is_task(text) else _FUNCTION).fullmatch(text):
        return text
    rule = "must be a known metric, a Python function as module:function, or lm_eval:TASK[:METRIC]"
    raise ValueError(f"{rule}; got {shown(text)}.{nearest(text, BUILT_IN_METRICS)}")


def _of_a_function(file: str, info: ValidationInfo) -> str:
    name = info.data.get("name")
    if name in BUILT_IN_METRICS:
        raise ValueError(f"is for a function (module:function), {name} is built in; got {shown(file)}")
    return file


def _direction_of(direction: str | None, info: ValidationInfo) -> str | None:
    name = info.data.get("name")
    if name in BUILT_IN_METRICS and direction == "minimize":
        raise ValueError(f"must be maximize: {name} is better when higher; got 'minimize'")
    if name is not None and name not in BUILT_IN_METRICS and not _is_task(name) and direction is None:
        raise ValueError(f"is needed for a function: maximize or minimize; got nothing for {name}")
    return direction


class MetricSection(Section):
    """What answers to evaluation prompts are worth; `metric: NAME` is short for `metric: {name: NAME}`."""

    short_form: ClassVar[str] = "name"

    name: Annotated[Text, AfterValidator(_name)]
    """exact_match, contains, json_valid, module:function or lm_eval:TASK[:METRIC]; exact_match: the answer
    equals the record's own, blanks around both ignored; contains: it contains the record's own; json_valid:
    it is JSON; these are means in [0, 1]. A function is called with (records, completions). A task needs the
    package lm-eval."""
    file: Annotated[Text, AfterValidator(_of_a_function)] | None = None
    """Python file of the function; null: MODULE.py beside the sweep file if there is one, else the module as
    Python imports it. Its text is sent to every worker; what it imports must be installed there. For
    lm_eval:TASK: the YAML file of a task of your own."""
    direction: Annotated[
        Literal["maximize", "minimize"] | None, AfterValidator(_direction_of), Field(validate_default=True)
    ] = None
    """null: maximize for the built-in metrics, what the task says for lm_eval; required for a function."""
    max_new_tokens: PositiveInt = 32
    """Most tokens of an answer; a stop token ends it sooner. A task's own max_gen_toks takes precedence."""
    num_prompts: PositiveInt = 64
    """How many evaluation examples are answered: the first of the set (of a task: its first documents), or
    all if it has fewer."""
    every: PositiveInt = 1
    """1: measured at every evaluation; n: at every n-th; always at the last."""
    objective: Flag = False
    """true: trials are searched, pruned and ranked by this metric; false: by the loss."""

    @property
    def is_task(self) -> bool:
        """Whether the name is a task of lm-eval."""
        return _is_task(self.name)

    @property
    def is_function(self) -> bool:
        """Whether the name is the user's own function."""
        return self.name not in BUILT_IN_METRICS and not self.is_task
