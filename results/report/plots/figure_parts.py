"""Parts that all plots share: markers, axes, hover texts, and the conversion of a figure to plain data."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from files_and_text.numbers import loss, six_digits, value_text
from files_and_text.plain_values import plain
from results.report.colors_and_marks import OUTCOME_STYLES, readable
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


def escaped(text: object) -> str:
    """Escapes plotly's HTML subset (bold, links), so that text from the study is shown literally."""
    return html.escape(str(text), quote=False)


def hover_text(trial: TrialResult, *, names: Sequence[str]) -> str:
    """What is shown when the pointer is on a trial's mark."""
    lines = [f"<b>trial {trial.number}</b> {escaped(readable(trial.outcome))}"]
    if trial.eval_loss is not None:
        lines.append(f"loss {loss(trial.eval_loss)}")
    elif trial.last_eval_loss is not None:
        lines.append(f"loss {loss(trial.last_eval_loss)} at {trial.percent}% of the budget")
    lines += [
        f"{escaped(name)} {escaped(value_text(trial.values[name]))}" for name in names if name in trial.values
    ]
    if trial.label:
        lines.append(escaped(trial.label[:80]))
    return "<br>".join(lines)


def markers(
    x: Sequence[Any], y: Sequence[Any], *, name: str, color: str, symbol: str, size: int = 9, **options: Any
) -> go.Scatter:
    """Points without a line; `options` are those of go.Scatter."""
    marker = {"color": color, "symbol": symbol, "size": size, "opacity": 0.85} | options.pop("marker", {})
    return go.Scatter(
        x=list(x), y=list(y), mode="markers", name=name, marker=marker, hoverinfo="text", **options
    )


def outcome_markers(x: Sequence[Any], y: Sequence[Any], outcome: str, **options: Any) -> go.Scatter:
    """Points of trials with one outcome, in its color and mark."""
    color, symbol, _ = OUTCOME_STYLES.get(outcome, OUTCOME_STYLES["running"])
    return markers(x, y, name=readable(outcome), color=color, symbol=symbol, **options)


def plain_figure(traces: Sequence[Any], **layout: Any) -> Mapping[str, Any]:
    """`data` and `layout` as builtins; invalid figures fail here, not in the browser."""
    found = go.Figure(data=list(traces), layout={"template": None, **layout}).to_plotly_json()
    found["layout"].pop("template", None)
    result: Mapping[str, Any] = _rounded(plain({"data": found["data"], "layout": found["layout"]}))
    return result


def _rounded(value: Any) -> Any:
    """Six digits are more than a screen shows, and take half the bytes."""
    if isinstance(value, float):
        return six_digits(value)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value


def log_axis(title: str, **options: Any) -> dict[str, Any]:
    """A log axis with powers of ten, 2 and 5 between them, written as 1e-4."""
    return {"title": {"text": title}, "type": "log", "exponentformat": "e", "dtick": "D2", **options}


def needs_log_scale(values: Sequence[float]) -> bool:
    """Whether a log axis is possible and useful: all values above zero, spread by more than a factor of 4."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 4


def loss_range(values: Sequence[float]) -> tuple[float, float] | None:
    """From the lowest loss to somewhat above the 90th percentile; None without values.

    Otherwise one diverged trial would compress all others. The caller's caption counts the losses beyond.
    """
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    bulk = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    top = min(high, bulk + 1.5 * (bulk - low)) if bulk > low else high
    padding = 0.06 * ((top - low) or abs(low) or 1.0)
    return low - padding, top + padding
