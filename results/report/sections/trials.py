"""All trials in one table."""

from __future__ import annotations

from files_and_text.numbers import loss, value_text
from results.parameter_order import in_order
from results.report.blocks import Fold, Table
from results.report.facts import ReportFacts
from results.text.frozen import outcome_text


def trials_fold(facts: ReportFacts) -> Fold | None:
    """Finished trials by loss, then the others by number; None before the first trial."""
    sweep = facts.sweep
    if not sweep.trials:
        return None
    names = in_order([name for name, dimension in sweep.dimensions.items() if not dimension.fixed])
    finished = sweep.finished
    others = [trial for trial in sweep.trials if trial.eval_loss is None]
    table = Table(
        caption="Loss in nats per token; of a trial that ended early its last one",
        header=("trial", "outcome", "loss", "at", *names, "what it is"),
        rows=[
            (
                str(trial.number),
                outcome_text(trial),
                "" if trial.last_eval_loss is None else loss(trial.eval_loss or trial.last_eval_loss),
                "" if trial.percent is None else f"{trial.percent}%",
                *(value_text(trial.values[name]) if name in trial.values else "" for name in names),
                trial.label,
            )
            for trial in (*finished, *others)
        ],
        stacked=True,
    )
    return Fold(summary=f"All trials ({len(sweep.trials)})", blocks=[table])
