"""The configs of one model in a published table, as a sweep with one trial per config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from files_and_text.numbers import number
from results.published.table import PublishedRun
from results.sweep_result import SweepResult, TrialResult
from search_spaces import Dimension, GuidelineRow
from search_spaces.dimension import Value

_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)b\b", re.IGNORECASE)

Settings = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One config of one model and the losses of its runs, nats per token."""

    name: str
    values: Mapping[str, Value]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.losses)

    @property
    def rate(self) -> float:
        return float(self.values["learning_rate"])

    @property
    def other_settings(self) -> Settings:
        """Everything but the learning rate."""
        return tuple(sorted((k, v) for k, v in self.values.items() if k != "learning_rate"))


def size_from_name(model: str) -> float | None:
    """Number of parameters that a model's name states (`Llama-3.1-8B`: 8e9; of a mixture the whole), or
    None."""
    found = _SIZE.search(model.rsplit("/", 1)[-1])
    return None if found is None else float(found.group(1)) * 1e9


def configs_of(runs: Sequence[PublishedRun]) -> list[Config]:
    """Runs with the same settings together, in the order of the table."""
    grouped: dict[Settings, list[float]] = {}
    for run in runs:
        grouped.setdefault(tuple(sorted(run.values.items())), []).append(run.eval_loss)
    return [
        Config(name=config_name(dict(key)), values=dict(key), losses=tuple(losses))
        for key, losses in grouped.items()
    ]


def sweep_of(
    model: str, configs: Sequence[Config], guidelines: Sequence[GuidelineRow], context: Mapping[str, Any]
) -> SweepResult:
    """Every config as a trial with the mean of its runs; without a size in `context`, the name's."""
    size = context.get("model_size") or size_from_name(model)
    return SweepResult(
        name=model,
        metric="eval_loss",
        trials=[
            TrialResult(number=index, values=dict(c.values), eval_loss=c.mean, outcome="complete")
            for index, c in enumerate(configs)
        ],
        dimensions=_dimensions(configs),
        guidelines=guidelines,
        context={**context, "model": model} | ({} if size is None else {"model_size": size}),
    )


def config_name(values: Mapping[str, Value]) -> str:
    """`learning_rate 2e-4, lora_r 16`."""
    return ", ".join(
        f"{name} {number(value) if isinstance(value, float) else value}"
        for name, value in sorted(values.items(), key=lambda item: item[0] != "learning_rate")
    )


def _dimensions(configs: Sequence[Config]) -> dict[str, Dimension]:
    found = {}
    for name in dict.fromkeys(name for config in configs for name in config.values):
        values = [config.values[name] for config in configs if name in config.values]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) < len(values):
            choices = tuple(dict.fromkeys(values))
            found[name] = Dimension(name=name, kind="categorical", choices=choices, default=choices[0])
            continue
        low, high = float(min(numbers)), float(max(numbers))
        found[name] = Dimension(name=name, kind="float", low=low, high=high, log=low > 0, default=low)
    return found
