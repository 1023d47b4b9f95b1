"""Loss by learning rate and embedding ratio."""

from __future__ import annotations

from collections.abc import Sequence

from results.answer.answer import Answer
from results.charts.builders.ranges import log_ends
from results.charts.builders.trial_marks import EARLY, positive, searched, trial_text
from results.charts.chart import Axis, Band, Chart, Mark, Series
from results.sweep_result import SweepResult, TrialResult
from results.text.gaps import short_loss

RATE, RATIO = "learning_rate", "embedding_lr_ratio"


def embedding_ratio_chart(sweep: SweepResult, answer: Answer) -> Chart | None:
    """None where fewer than two ratios were tried, or no trial with one has finished."""
    trials = [t for t in sweep.started if positive(t, RATE) is not None and positive(t, RATIO) is not None]
    finished = sorted((t for t in trials if t.eval_loss is not None), key=lambda t: (t.eval_loss, t.number))
    if not finished or len({t.values[RATIO] for t in trials}) < 2:
        return None
    names = searched(sweep)
    box = _box(sweep)
    x = _axis(
        trials, RATE, "learning rate (log scale)", [end for band in box for end in (band.low, band.high)]
    )
    reach = [end for band in box for end in (band.y_low, band.y_high) if end]
    y = _axis(trials, RATIO, "embedding rate / learning rate (log scale)", reach)
    return Chart(
        id="chart-embedding-ratio",
        title="Embedding rate",
        label="Loss of every trial by learning rate and by the ratio of the embedding rate to it",
        caption=_caption(sweep, finished),
        x=x,
        y=y,
        series=(*_early(trials, names), *_finished(finished, names, answer)),
        bands=tuple(box),
        shade_key=f"loss{' of one run' if answer.seeds else ''} {short_loss(finished[0].eval_loss)} to "
        f"{short_loss(finished[-1].eval_loss)}"
        if len(finished) > 1
        else "",
        height=320,
    )


def _axis(trials: Sequence[TrialResult], name: str, title: str, reach: Sequence[float]) -> Axis:
    low, high = log_ends([positive(trial, name) or 0.0 for trial in trials], reach=reach)
    return Axis(title=title, low=low, high=high, is_log=True)


def _early(trials: Sequence[TrialResult], names: Sequence[str]) -> list[Series]:
    groups = [(outcome, [t for t in trials if t.outcome == outcome]) for outcome in EARLY]
    return [
        Series(style=outcome, name=outcome.replace("_", " "), marks=tuple(_mark(t, names) for t in chosen))
        for outcome, chosen in groups
        if chosen
    ]


def _finished(finished: Sequence[TrialResult], names: Sequence[str], answer: Answer) -> list[Series]:
    """Colored by rank: by loss, one diverged trial would leave one color for all others."""
    last = max(len(finished) - 1, 1)
    best = None if answer.best is None else answer.best.trial
    default = None if answer.default.trial == best else answer.default.trial
    circles, found = [], []
    for rank, trial in enumerate(finished):
        if trial.number == best:
            found.append(Series(style="best", name="best", marks=(_mark(trial, names, label="best"),)))
        elif trial.number == default:
            mark = _mark(trial, names, label="guideline default")
            found.insert(0, Series(style="default", name="guideline default", marks=(mark,)))
        else:
            circles.append(_mark(trial, names, shade=rank / last))
    ring = [Series(style="shaded", marks=tuple(reversed(circles)))] if circles else []
    return [*ring, *found]


def _mark(trial: TrialResult, names: Sequence[str], *, label: str = "", shade: float | None = None) -> Mark:
    text = trial_text(trial, names, role=label)
    x, y = positive(trial, RATE) or 0.0, positive(trial, RATIO) or 0.0
    return Mark(x=x, y=y, text=text, label=label, shade=shade)


def _box(sweep: SweepResult) -> list[Band]:
    """The tables' ranges of both, where they give both."""
    rate, ratio = (sweep.dimensions.get(name) for name in (RATE, RATIO))
    if rate is None or ratio is None:
        return []
    x, y = (rate.guideline_low, rate.guideline_high), (ratio.guideline_low, ratio.guideline_high)
    if not (x[0] and x[1] and y[0] and y[1]):
        return []
    return [
        Band(low=x[0], high=x[1], y_low=y[0], y_high=y[1], style="table", text="what the tables say of both")
    ]


def _caption(sweep: SweepResult, finished: Sequence[TrialResult]) -> str:
    parts = (
        ["Each circle is a finished trial, the stronger its color the lower its loss."]
        if len(finished) > 1
        else []
    )
    if _box(sweep):
        parts.append("The dashed box spans what the tables say.")
    return " ".join(parts)
