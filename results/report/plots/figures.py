"""Shared by all plots: marks, axes, hover texts, and the way from a plotly figure to plain data."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from files_and_text.numbers import loss, six_digits, value_text
from files_and_text.plain_values import plain
from results.report.palette import OUTCOMES, spoken
from results.sweep_result import TrialResult

LOSS_AXIS = "evaluation loss (nats per token)"
PERCENT_AXIS = "share of the budget (%)"

_UNITS = {"warmup_ratio": "share of all steps", "embedding_lr_ratio": "share of the learning rate"}
_COUNTS = ("warmup_steps", "max_steps")


def axis_title(name: str) -> str:
    """A hyperparameter's name with its unit, where it has one."""
    if name in _COUNTS:
        return f"{name} (optimizer steps)"
    return f"{name} ({_UNITS[name]})" if name in _UNITS else name


def drawn(text: object) -> str:
    """Text as plotly shows it literally: its own little HTML (bold, links) is for us, not for the data."""
    return html.escape(str(text), quote=False)


def hover(trial: TrialResult, *, names: Sequence[str]) -> str:
    """What a pointer on a trial's mark shows."""
    lines = [f"<b>trial {trial.number}</b> {drawn(spoken(trial.outcome))}"]
    if trial.eval_loss is not None:
        lines.append(f"loss {loss(trial.eval_loss)}")
    elif trial.last_eval_loss is not None:
        lines.append(f"loss {loss(trial.last_eval_loss)} at {trial.percent}% of the budget")
    lines += [
        f"{drawn(name)} {drawn(value_text(trial.values[name]))}" for name in names if name in trial.values
    ]
    if trial.label:
        lines.append(drawn(trial.label[:80]))
    return "<br>".join(lines)


def marks(
    x: Sequence[Any], y: Sequence[Any], *, name: str, colour: str, symbol: str, size: int = 9, **options: Any
) -> go.Scatter:
    """Points without a line; `options` are plotly's own."""
    marker = {"color": colour, "symbol": symbol, "size": size, "opacity": 0.85} | options.pop("marker", {})
    return go.Scatter(
        x=list(x), y=list(y), mode="markers", name=name, marker=marker, hoverinfo="text", **options
    )


def outcome_marks(x: Sequence[Any], y: Sequence[Any], outcome: str, **options: Any) -> go.Scatter:
    """Points of trials that ended in one way, by that outcome's colour and mark."""
    colour, symbol, _ = OUTCOMES.get(outcome, OUTCOMES["running"])
    return marks(x, y, name=spoken(outcome), colour=colour, symbol=symbol, **options)


def spec(traces: Sequence[Any], **layout: Any) -> Mapping[str, Any]:
    """`data` and `layout` in builtins; what plotly refuses is refused here, not in a browser."""
    found = go.Figure(data=list(traces), layout={"template": None, **layout}).to_plotly_json()
    found["layout"].pop("template", None)
    result: Mapping[str, Any] = _short(plain({"data": found["data"], "layout": found["layout"]}))
    return result


def _short(value: Any) -> Any:
    """Six digits are more than a screen shows, and half the bytes."""
    if isinstance(value, float):
        return six_digits(value)
    if isinstance(value, list):
        return [_short(item) for item in value]
    return {name: _short(item) for name, item in value.items()} if isinstance(value, dict) else value


def log_axis(title: str, **options: Any) -> dict[str, Any]:
    """A log axis with powers of ten, 2 and 5 between them, written as 1e-4."""
    return {"title": {"text": title}, "type": "log", "exponentformat": "e", "dtick": "D2", **options}


def is_log(values: Sequence[float]) -> bool:
    """Whether a log axis can show them and helps: all above zero, more than a factor of 4 apart."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 4


def loss_range(values: Sequence[float]) -> tuple[float, float] | None:
    """From the lowest to where the bulk ends, with a little air; None without values.

    A single trial that blew up must not press all others onto one line. Who draws says how many lie beyond.
    """
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    bulk = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    top = min(high, bulk + 1.5 * (bulk - low)) if bulk > low else high
    air = 0.06 * ((top - low) or abs(low) or 1.0)
    return low - air, top + air
