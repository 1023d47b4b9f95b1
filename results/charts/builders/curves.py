"""Learning curves: the loss of every trial over its budget, the best and the guideline default in front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from files_and_text.numbers import plural
from results.answer.answer import Answer
from results.charts.builders.ranges import loss_ends
from results.charts.builders.trial_marks import BROKEN, EARLY, LOSS_AXIS, searched, trial_text
from results.charts.chart import Axis, Chart, Guide, Line, Mark, Series, Tick, Weight
from results.stored_trials import FROZEN
from results.sweep_result import SweepResult, TrialResult
from results.text.gaps import short_loss

_ORDER = (*EARLY, "running", "complete")
_MOST_RUNGS = 6
_CROWD = 40
"""More lines than this are drawn thin."""
SINGLE_RUNS = "Lines are the sweep's single runs; losses over new seeds stand in the answer."
"""After a confirmation: another loss than that of the answer is no contradiction."""
_Curve = tuple[tuple[float, float], ...]


def curves_chart(sweep: SweepResult, answer: Answer) -> Chart | None:
    """None before the first evaluation of a trial."""
    trials = [trial for trial in sweep.started if trial.curve]
    if not trials:
        return None
    base = sweep.base_eval_loss
    best, default = _numbers(answer)
    front = [trial for number in (default, best) for trial in trials if trial.number == number]
    low, high = loss_ends(
        [value for trial in trials for _, value in trial.curve],
        named=[trial.curve[-1][1] for trial in front],
        base=base,
    )
    series = [
        _series(sweep, [t for t in trials if t.outcome == outcome and t not in front], outcome)
        for outcome in _ORDER
    ]
    series += [_front(sweep, answer, trial, "best" if trial.number == best else "default") for trial in front]
    return Chart(
        id="chart-curves",
        title="Learning curves",
        label="Evaluation loss of every trial over its training budget",
        caption=_caption(trials, high, base, answer),
        x=Axis(
            title="share of the training budget",
            low=0.0 if base is not None else min(trial.curve[0][0] for trial in trials) - 2.0,
            high=100.0,
            ticks=tuple(Tick(at=float(at), text=f"{at}%") for at in range(0, 101, 20)),
            has_grid=False,
        ),
        y=Axis(title=LOSS_AXIS, low=low, high=high),
        series=tuple(one for one in series if one is not None),
        guides=tuple(_rungs(trials)),
        is_spread=False,
    )


def _numbers(answer: Answer) -> tuple[int | None, int | None]:
    """The trials of the best and of the default; None for a default that is the best."""
    best = None if answer.best is None else answer.best.trial
    return best, None if answer.default.trial == best else answer.default.trial


def _points(sweep: SweepResult, trial: TrialResult) -> _Curve:
    """All lines start at the untouched base."""
    start = () if sweep.base_eval_loss is None else ((0.0, sweep.base_eval_loss),)
    return (*start, *((float(percent), value) for percent, value in trial.curve))


def _series(sweep: SweepResult, trials: Sequence[TrialResult], outcome: str) -> Series | None:
    """Thin lines; a mark at the end of those that ended early for another reason than pruning."""
    if not trials:
        return None
    names = searched(sweep)
    ends = [(trial, _points(sweep, trial)[-1]) for trial in trials if outcome in BROKEN]
    is_thin = outcome in EARLY or len(trials) > _CROWD
    weight: Weight = "light" if is_thin else "normal"
    return Series(
        style="trial" if outcome == "complete" else outcome,
        name="complete" if outcome == "complete" else outcome.replace("_", " "),
        lines=tuple(Line(points=_points(sweep, t), text=trial_text(t, names)) for t in trials),
        marks=tuple(Mark(x=x, y=y, text=trial_text(t, names)) for t, (x, y) in ends),
        weight=weight,
    )


def _front(sweep: SweepResult, answer: Answer, trial: TrialResult, style: str) -> Series:
    """Once the seeds' mean is known, the label no longer names the loss of this single run."""
    name = "guideline default" if style == "default" else style
    line = Line(
        points=_points(sweep, trial),
        text=trial_text(trial, searched(sweep), role=name),
        label=style if answer.seeds else f"{style} {short_loss(trial.curve[-1][1])}",
    )
    return Series(style=style, name=name, lines=(line,), weight="strong")


def _rungs(trials: Sequence[TrialResult]) -> list[Guide]:
    """Where trials were pruned or frozen, and how many; the rungs with the most where there are many."""
    stopped = [trial for trial in trials if trial.outcome in ("pruned", FROZEN)]
    rungs = []
    for percent, _ in sorted(Counter(trial.curve[-1][0] for trial in stopped).most_common(_MOST_RUNGS)):
        here = Counter(trial.outcome for trial in stopped if trial.curve[-1][0] == percent)
        counts = [(outcome, here[outcome]) for outcome in ("pruned", FROZEN) if here[outcome]]
        label = ", ".join(f"{count} {outcome}" for outcome, count in counts)
        text = " and ".join(f"{plural(count, 'trial')} {outcome}" for outcome, count in counts)
        text = f"{text} at {percent}% of the budget"
        rungs.append(Guide(side="x", at=float(percent), style="rung", label=label, text=text))
    return rungs


def _caption(trials: Sequence[TrialResult], high: float, base: float | None, answer: Answer) -> str:
    parts = ["One line per trial."]
    if answer.seeds:
        parts.append(SINGLE_RUNS)
    if base is not None:
        parts.append(f"All start at the untouched base, {short_loss(base)}.")
    beyond = sum(max(value for _, value in trial.curve) > high for trial in trials)
    if beyond:
        parts.append(f"{plural(beyond, 'line')} {'leaves' if beyond == 1 else 'leave'} the range shown.")
    return " ".join(parts)
