"""The lines under the report's title: when and how the sweep ran, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from files_and_text.numbers import parameters, plural
from results.report.facts import ReportFacts
from results.text.answer import done_text

_VERSIONS = ("torch", "transformers", "peft")
"""The packages that decide the numbers; all others stand under how to reproduce the sweep."""


def header_lines(facts: ReportFacts) -> list[str]:
    """Date, trials, time and device; then model, data, throughput and versions, as far as they are known."""
    run = facts.answer.run
    speed = "" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f} tokens per second"
    return [
        _joined(_date(facts), done_text(run), speed),
        _joined(_model(facts), _data(facts), _steps(facts), _versions(facts.sweep.versions)),
    ]


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def _date(facts: ReportFacts) -> str:
    """Of the last trial's end, or of the first one's start."""
    trials = facts.sweep.trials
    at = max((t.ended for t in trials if t.ended is not None), default=None) or min(
        (t.started for t in trials if t.started is not None), default=None
    )
    return "" if at is None else f"{at.day} {at:%B %Y}"


def _model(facts: ReportFacts) -> str:
    """A hub id as it is, of a folder only its name; with the number of parameters."""
    context = facts.sweep.context
    name = str(context.get("model") or "")
    shown = PurePath(name).name if PurePath(name).is_absolute() else name
    size = context.get("model_size")
    return f"{shown} ({parameters(size)} parameters)" if shown and isinstance(size, int | float) else shown


def _data(facts: ReportFacts) -> str:
    account = facts.sweep.context.get("data_account")
    if not isinstance(account, Mapping):
        return ""
    train, evaluation = (_count(account, name) for name in ("train", "eval"))
    return f"{train:,} records, {evaluation:,} for evaluation"


def _count(account: Mapping[str, Any], name: str) -> int:
    return int((account.get(name) or {}).get("num_used", 0))


def _steps(facts: ReportFacts) -> str:
    steps = facts.sweep.context.get("max_steps")
    return f"{plural(steps, 'step')} a trial" if isinstance(steps, int) else ""


def _versions(versions: Mapping[str, str]) -> str:
    """Without the build, as in 2.13.0+cpu: the device is named before."""
    return ", ".join(f"{name} {versions[name].partition('+')[0]}" for name in _VERSIONS if name in versions)
