"""The metric: a score of generated answers, beside the loss or instead of it.

The evaluation set's first prompts are continued greedily (`pack/generation.py`) and scored by one of three
built-in rules or by a Python function. Scores of built-in rules are means in [0, 1].
"""

from __future__ import annotations

import hashlib
import json
import linecache
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from files_and_text.choices import BUILT_IN_METRICS
from lora_runner.errors import MetricError, first_line

if TYPE_CHECKING:
    from lora_runner.data import EvalPrompt

Direction = Literal["maximize", "minimize"]
TASK_PREFIX = "lm_eval:"

Function = Callable[[list[dict[str, Any]], list[str]], Any]
"""(raw evaluation records, completions) -> a number, or one for each record."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """What is measured, how, and when; plain values, part of a session's options."""

    name: str
    """One of BUILT_IN_METRICS, "module:function", or "lm_eval:TASK" with ":METRIC" or without."""
    direction: Direction = "maximize"
    max_new_tokens: int = 32
    """0 for a task that compares likelihoods and generates nothing."""
    num_prompts: int = 64
    every: int = 1
    """1: at every report, n: at every n-th; always at the last."""
    objective: bool = False
    """Whether trials are compared by it; otherwise it is only recorded beside the loss."""
    source: str = field(default="", repr=False)
    """Text of the file with the function or with the user's own task; empty otherwise."""
    file: str = ""
    """That file's name, for tracebacks."""
    prompt_length: int = 0
    """Tokens of a task's longest text; 0 for the evaluation set's prompts."""

    def is_measured(self, percent: int, report_at: Sequence[int]) -> bool:
        """Whether the report at this percent of the budget measures it."""
        if percent == report_at[-1]:
            return True
        return percent in report_at and (report_at.index(percent) + 1) % self.every == 0

    @property
    def is_task(self) -> bool:
        """Whether an lm-eval task is used instead of the evaluation set (`lm_eval_task.py`)."""
        return self.name.startswith(TASK_PREFIX)

    def cost(self, value: float) -> float:
        """The value as a study stores it, which minimises: negated if it is to be maximised."""
        return -value if self.direction == "maximize" else value

    def identity(self) -> dict[str, Any]:
        """What must be equal for values to be comparable; the source as its digest."""
        values = asdict(self)
        del values["file"], values["prompt_length"]
        source = values.pop("source")
        return values | ({"source": hashlib.sha256(source.encode()).hexdigest()} if source else {})


def objective_of(metric: MetricSpec | None) -> str:
    """The name of what trials are compared by."""
    return metric.name if metric is not None and metric.objective else "eval_loss"


class Metric:
    """Scores answers to one sweep's prompts. Raises MetricError when the function cannot be loaded."""

    def __init__(self, spec: MetricSpec, prompts: Sequence[EvalPrompt]) -> None:
        self.spec = spec
        self.prompts = tuple(prompts)
        self._function = (
            None if spec.name in BUILT_IN_METRICS else load_function(spec.name, spec.source, spec.file)
        )

    def stop_token_ids(self, end: int | None) -> frozenset[int]:
        """Tokens that end an answer: those that end answers in the data, and the tokenizer's end token."""
        learned = frozenset[int]().union(*(prompt.stop_token_ids for prompt in self.prompts))
        return learned if end is None else learned | {end}

    def score(self, completions: Sequence[str]) -> float:
        """The mean over the prompts, or the one number that the function returned.

        Raises MetricError if a result is not a finite number or their count is wrong, and whatever the
        function raises.
        """
        if self._function is None:
            rule = _RULES[self.spec.name]
            return math.fsum(map(rule, self.prompts, completions)) / len(self.prompts)
        records = [dict(prompt.record) for prompt in self.prompts]
        return _number(self.spec.name, self._function(records, list(completions)), len(records))


def _json_valid(_: EvalPrompt, completion: str) -> bool:
    try:
        json.loads(completion)
    except (ValueError, RecursionError):
        return False
    return True


_RULES: Mapping[str, Callable[[Any, str], bool]] = {
    "exact_match": lambda prompt, completion: completion.strip() == prompt.reference.strip(),
    "contains": lambda prompt, completion: prompt.reference.strip() in completion,
    "json_valid": _json_valid,
}


def load_function(name: str, source: str, file: str) -> Function:
    """The function of "module:function", from the text of the module's file. Raises MetricError.

    The text runs under the module's own name, so that imports, also relative ones, work as in the file; what
    it imports must be installed on every machine that measures.
    """
    module_name, _, function_name = name.partition(":")
    module = types.ModuleType(module_name)
    module.__file__ = file
    module.__package__ = module_name.rpartition(".")[0]
    # So that tracebacks show its lines on machines without the file.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    before = sys.modules.get(module_name)
    sys.modules[module_name] = module  # dataclasses and pickle look up their module
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise MetricError(
            f"{file} cannot be imported: {type(error).__name__}: {first_line(error)}", file=file
        ) from error
    finally:
        if before is not None:
            sys.modules[module_name] = before
    function = module.__dict__.get(function_name)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise MetricError(f"{file} has no function {function_name!r}", file=file, known=known)
    return function  # type: ignore[no-any-return]


def _number(name: str, given: Any, num_records: int) -> float:
    rule = f"metric {name} must return a finite number, or one for each of {num_records} records"
    if isinstance(given, list | tuple) or getattr(given, "ndim", 0) != 0:
        if len(given) != num_records:
            raise MetricError(f"{rule}; got {len(given)} of them")
        return math.fsum(finite(value, rule) for value in given) / num_records
    return finite(given, rule)


def finite(value: Any, rule: str) -> float:
    """The value as a finite number. Raises MetricError, whose message begins with `rule`."""
    try:
        # Text is an error too: float() would accept "nan" and " 1 ".
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise MetricError(f"{rule}; got {repr(value)[:60]}")
    return number
