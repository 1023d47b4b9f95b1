"""What is measured beside the loss: a score of the answers that a trial gives."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from files_and_text.choices import BUILT_IN_METRICS
from files_and_text.nearest_name import nearest
from sweeps.config.fields import check_flag, check_one_of, check_text, check_whole, shown, wrong
from sweeps.config.sections.base import Section

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_TASK = re.compile(r"lm_eval:[^:\s]+(:[^:\s]+)?")


def _name(value: Any) -> str:
    text: str = check_text()(value)
    if text in BUILT_IN_METRICS or _TASK.fullmatch(text):
        return text
    if _FUNCTION.fullmatch(text) and not text.startswith("lm_eval:"):
        return text
    rule = "must be a known metric, a Python function as module:function, or lm_eval:TASK[:METRIC]"
    raise wrong(f"{rule}; got {shown(text)}.{nearest(text, BUILT_IN_METRICS)}")


class MetricSection(Section):
    """`metric`: what answers to evaluation prompts are worth; `metric: NAME` alone is the same as `name`."""

    name: Annotated[str, BeforeValidator(_name)]
    """exact_match: the answer is the record's own, blanks around both left out; contains: the record's own
    stands in it; json_valid: it is JSON. Means in [0, 1]. Or module:function, called with (records,
    completions). Or lm_eval:TASK or lm_eval:TASK:METRIC, where the package lm-eval is installed."""
    file: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    """Python file of the function; null: MODULE.py beside the sweep file where there is one, else the module
    as Python would import it. Its text goes to every worker; what it imports must be there. Of lm_eval:TASK:
    the YAML file of a task of your own."""
    direction: Annotated[
        Literal["maximize", "minimize"] | None,
        BeforeValidator(check_one_of(("maximize", "minimize"), none=True)),
    ] = None
    """null: maximize, for the built-in ones; what the task says, of lm_eval; a function's must be given."""
    max_new_tokens: Annotated[int, BeforeValidator(check_whole(1))] = 32
    """Tokens of an answer at most; it ends sooner at a stop token. A task's own max_gen_toks goes first."""
    num_prompts: Annotated[int, BeforeValidator(check_whole(1))] = 64
    """Evaluation examples that are answered, the first of the set; all where it has fewer. Of a task: its
    first documents."""
    every: Annotated[int, BeforeValidator(check_whole(1))] = 1
    """1: measured at every evaluation; n: at every n-th; always at the last."""
    objective: Annotated[bool, BeforeValidator(check_flag())] = False
    """true: trials are searched, pruned and ranked by it; false: by the loss, and this is shown beside it."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _a_function_says_where_it_leads(self) -> Self:
        if self.is_function and self.direction is None:
            raise wrong(
                f"is needed for a function: maximize or minimize; got nothing for {self.name}",
                "direction",
                involves=("name",),
            )
        if self.is_built_in and self.direction == "minimize":
            raise wrong(
                f"must be maximize: {self.name} is better when higher; got 'minimize'",
                "direction",
                involves=("name",),
            )
        if self.is_built_in and self.file is not None:
            raise wrong(
                f"is for a function (module:function), {self.name} is built in; got {shown(self.file)}",
                "file",
                involves=("name",),
            )
        return self

    @property
    def is_built_in(self) -> bool:
        """Whether one of the three rules scores."""
        return self.name in BUILT_IN_METRICS

    @property
    def is_task(self) -> bool:
        """Whether it is a task of lm-eval."""
        return self.name.startswith("lm_eval:")

    @property
    def is_function(self) -> bool:
        """Whether the user's own function scores."""
        return not (self.is_built_in or self.is_task)
