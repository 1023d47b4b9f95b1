"""What mattered: how much each hyperparameter decides whether a trial is among the best."""

from __future__ import annotations

from results.charts.chart import Axis, Bar, Chart, Series, Tick
from results.hyperparameter_importance import Importance
from results.text.parameters import parameter_title

_LANE = 44
"""Pixels."""


def importance_chart(importance: Importance) -> Chart | None:
    """None with too few trials to say it; `importance.reason` is the sentence to show instead."""
    if not importance.shares:
        return None
    shares = [(parameter_title(name), 100 * share) for name, share in importance.shares.items()]
    bars = tuple(
        Bar(
            low=0,
            high=share,
            y=float(lane),
            text=f"{title}: {share:.1f}%",
            label=f"{share:.0f}%",
            is_label_outside=True,
        )
        for lane, (title, share) in enumerate(shares)
    )
    return Chart(
        id="chart-importance",
        title="What mattered",
        label="Share of the importance of each hyperparameter",
        caption="How much each hyperparameter decides whether a trial is among the best tenth (PED-ANOVA, "
        f"{importance.num_trials} finished trials). The shares sum to 100% and say nothing of the direction.",
        x=Axis(title="", low=0.0, high=max(share for _, share in shares), ticks=()),
        y=Axis(
            title="",
            low=-0.5,
            high=len(shares) - 0.5,
            is_reversed=True,
            ticks=tuple(Tick(at=float(lane), text=title) for lane, (title, _) in enumerate(shares)),
            has_grid=False,
        ),
        series=(Series(style="trial", bars=bars),),
        height=_LANE * len(shares),
    )
