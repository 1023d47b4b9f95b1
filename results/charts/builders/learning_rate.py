"""Loss against learning rate: the best, the guideline default, and what the tables say."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import number, plural
from results.answer.answer import Answer, Loss, TableValue
from results.charts.builders.ranges import log_ends, loss_ends
from results.charts.builders.trial_marks import EARLY, LOSS_AXIS, SCHEDULER, positive, searched, trial_text
from results.charts.chart import Axis, Chart, Guide, Mark, Series, StripRow
from results.charts.styles import OTHER_SCHEDULER, scheduler_style
from results.sweep_result import SweepResult, TrialResult
from results.text.gaps import gap_text, short_loss

RATE = "learning_rate"
_MOST_ROWS = 6


def learning_rate_chart(sweep: SweepResult, answer: Answer) -> Chart | None:
    """None where no trial has finished, or where all trials have the same learning rate."""
    trials = [trial for trial in sweep.started if positive(trial, RATE) is not None]
    finished = [trial for trial in trials if trial.eval_loss is not None]
    if not finished or len({trial.values[RATE] for trial in trials}) < 2:
        return None
    names = searched(sweep)
    confirmed = _confirmed(answer)
    base = answer.base.loss.value if answer.base.loss else None
    tables = _tables(answer)
    again = _run_again(tables, answer)
    spans = [(loss.low, loss.value, loss.high) for loss in confirmed.values()]
    spans += [(mark.low, mark.y, mark.high) for mark in again]
    low, high = loss_ends(
        [trial.eval_loss for trial in finished if trial.eval_loss is not None],
        named=[end for span in spans for end in span if end is not None],
        base=base,
    )
    again = tuple(mark for mark in again if mark.y <= high)
    shown = [trial for trial in finished if (trial.eval_loss or 0.0) <= high]
    rates = [positive(trial, RATE) or 0.0 for trial in trials]
    edge = _edge(trials, [trial for trial in finished if trial not in shown], names)
    left, right = log_ends(rates, reach=[end for value in tables for end in (value.low, value.high) if end])
    return Chart(
        id="chart-learning-rate",
        title="Loss against learning rate",
        label="Evaluation loss of every trial against its learning rate, with the values of the tables",
        caption=_caption(trials, finished, shown, base, high, has_seeds=answer.seeds > 0),
        x=Axis(title="learning rate (log scale)", low=left, high=right, is_log=True),
        y=Axis(title=LOSS_AXIS, low=low, high=high),
        series=(
            *_by_scheduler(shown, names, skipped={n for n, loss in confirmed.items() if not loss.seeds}),
            *([Series(style="table", name="best at a table's rate", marks=again)] if again else []),
            *_named(sweep, answer, names, high),
        ),
        guides=tuple(_guides(tables, base if base is not None and base <= high else None)),
        edge=tuple(edge),
        edge_title=_edge_title(edge),
        strip=tuple(_row(value) for value in tables),
        strip_title="what the tables say" if tables else "",
        height=300,
    )


def _confirmed(answer: Answer) -> dict[int, Loss]:
    """Trial -> its loss, for the best and the guideline default."""
    found = {}
    if answer.default.trial is not None and answer.default.loss is not None:
        found[answer.default.trial] = answer.default.loss
    if answer.best is not None:
        found[answer.best.trial] = answer.best.loss
    return found


def _tables(answer: Answer) -> list[TableValue]:
    """The tables' rates and ranges, the default's own first; warnings are no values to take."""
    entry = next((parameter for parameter in answer.parameters if parameter.parameter == RATE), None)
    values = [] if entry is None else [v for v in entry.tables if not v.is_warning and v.low and v.high]
    return values[:_MOST_ROWS]


def _run_again(tables: Sequence[TableValue], answer: Answer) -> tuple[Mark, ...]:
    """The best with a rate of the tables, on new seeds: its mean, with the interval of what it costs."""
    found = []
    for value in tables:
        cost = value.cost
        if answer.best is None or cost is None or not cost.seeds:
            continue  # single runs are marks already
        if cost.differs_in or cost == answer.default.gap:
            continue  # and so are the default and other trials with all of their own values
        if value.low is None or value.low != value.high:
            continue  # a range has no place on the axis
        best = answer.best.loss.value
        found.append(
            Mark(
                x=value.low,
                y=best + cost.nats,
                low=None if cost.low is None else best + cost.low,
                high=None if cost.high is None else best + cost.high,
                text=f"the best with learning rate {value.text}\ncosts {gap_text(cost)}",
            )
        )
    return tuple(found)


def _by_scheduler(trials: Sequence[TrialResult], names: Sequence[str], *, skipped: set[int]) -> list[Series]:
    """A symbol for each scheduler; trials that have a symbol of their own are left out."""
    kinds = sorted(
        {str(trial.values.get(SCHEDULER, "")) for trial in trials},
        key=lambda kind: (scheduler_style(kind) == OTHER_SCHEDULER, kind),
    )
    found = []
    for kind in kinds:
        marks = [
            _mark(trial, names)
            for trial in trials
            if str(trial.values.get(SCHEDULER, "")) == kind and trial.number not in skipped
        ]
        if marks:
            found.append(Series(style=scheduler_style(kind), name=kind or "trial", marks=tuple(marks)))
    return found


def _mark(trial: TrialResult, names: Sequence[str]) -> Mark:
    return Mark(x=positive(trial, RATE) or 0.0, y=trial.eval_loss or 0.0, text=trial_text(trial, names))


def _named(sweep: SweepResult, answer: Answer, names: Sequence[str], high: float) -> list[Series]:
    """The guideline default and the best, drawn last; the seeds' mean with its interval if there is one."""
    found = []
    by_number = {trial.number: trial for trial in sweep.trials}
    roles = [("default", "guideline default", answer.default.trial, answer.default.loss)]
    if answer.best is not None:
        is_default = answer.best.trial == answer.default.trial
        best = ("best", "best, the guideline default" if is_default else "best")
        roles = [*([] if is_default else roles), (*best, answer.best.trial, answer.best.loss)]
    for style, name, number_, loss in roles:
        trial = by_number.get(-1 if number_ is None else number_)
        if trial is None or loss is None or positive(trial, RATE) is None or loss.value > high:
            continue
        mark = Mark(
            x=positive(trial, RATE) or 0.0,
            y=loss.value,
            low=loss.low,
            high=loss.high,
            text=trial_text(trial, names, role=name)
            if not loss.seeds
            else _seeds_text(trial, names, name, loss),
            label=_label(name, trial, loss, is_scheduler_searched=SCHEDULER in names),
            short_label=f"{style} {short_loss(loss.value)}",
        )
        found.append(Series(style=style, name=name, marks=(mark,)))
    return found


def _label(name: str, trial: TrialResult, loss: Loss, *, is_scheduler_searched: bool) -> str:
    parts = [f"{name} {short_loss(loss.value)}"]
    if is_scheduler_searched and trial.values.get(SCHEDULER):
        parts.append(str(trial.values[SCHEDULER]))
    if loss.seeds:
        parts.append(plural(loss.seeds, "seed"))
    return ", ".join(parts)


def _seeds_text(trial: TrialResult, names: Sequence[str], role: str, loss: Loss) -> str:
    head = f"{role}: trial {trial.number} on {plural(loss.seeds, 'new seed')}"
    mean = f"mean loss {short_loss(loss.value)}"
    if loss.low is not None and loss.high is not None:
        mean += f", 95% interval {short_loss(loss.low)} to {short_loss(loss.high)}"
    return "\n".join((head, mean, *trial_text(trial, names).split("\n")[1:]))


def _edge(trials: Sequence[TrialResult], above: Sequence[TrialResult], names: Sequence[str]) -> list[Series]:
    """Trials without a loss at the full budget, and those whose loss lies above what is shown."""
    groups = [
        (outcome, outcome.replace("_", " "), [t for t in trials if t.outcome == outcome])
        for outcome in (*EARLY, "running")
    ]
    groups.append(("above", "loss above", list(above)))
    return [
        Series(style=style, name=name, marks=tuple(_mark(trial, names) for trial in chosen))
        for style, name, chosen in groups
        if chosen
    ]


def _edge_title(edge: Sequence[Series]) -> str:
    words = {"running": "running", "above": "loss above"}
    found = dict.fromkeys(words.get(series.style, "stopped early") for series in edge)
    return f"top edge: {', '.join(found)}" if found else ""


def _guides(tables: Sequence[TableValue], base: float | None) -> list[Guide]:
    found = []
    for value in tables:
        if value.is_default and value.low == value.high and value.low is not None:
            found.append(Guide(side="x", at=value.low, style="default", text=_row_text(value)))
    if base is not None:
        text = f"untouched base {short_loss(base)}"
        found.append(Guide(side="y", at=base, style="base", label=text, text=text))
    return found


def _row(value: TableValue) -> StripRow:
    assert value.low is not None
    assert value.high is not None
    named = " (default)" if value.is_default else ""
    return StripRow(
        low=value.low,
        high=value.high,
        label=f"{value.text}{named}, {plural(len(value.rows), 'row')}",
        text=_row_text(value),
    )


def _row_text(value: TableValue) -> str:
    return "\n".join((f"tables: {value.text}, {plural(len(value.rows), 'row')}", *value.rows))


def _caption(
    trials: Sequence[TrialResult],
    finished: Sequence[TrialResult],
    shown: Sequence[TrialResult],
    base: float | None,
    high: float,
    *,
    has_seeds: bool,
) -> str:
    parts = ["Each mark is a trial at its full budget; lower is better."]
    places = [(trial.values[RATE], trial.eval_loss) for trial in shown]
    if len({rate for rate, _ in places}) < len(places):
        parts.append("Marks that would hide each other, as at one rate, stand a little to the side.")
    if has_seeds:
        parts.append("Marks with a bar are means over new seeds with an interval.")
    early = sum(trial.outcome in EARLY for trial in trials)
    if early:
        parts.append(
            f"On the top edge: {plural(early, 'trial')} stopped early, with the loss of a smaller budget."
        )
    if len(finished) > len(shown):
        parts.append(f"{plural(len(finished) - len(shown), 'loss')} above {number(high)} on the top edge.")
    if base is not None and base > high:
        parts.append(f"The untouched base has {short_loss(base)}, above what is shown.")
    return " ".join(parts)
