"""What a verdict says about the sweep's metric."""

from __future__ import annotations

from files_and_text.numbers import loss
from results.verdict.metric_comparison import MetricComparison


def metric_sentences(found: MetricComparison) -> list[str]:
    """The best by the metric, and by loss where that is another trial."""
    best, other, name = found.by_metric, found.by_loss, found.name
    values = f"trial {best.number} with {best.metric:.4f} (loss {loss(best.eval_loss)})"
    said = [
        f"Searched by {name} ({found.direction}): the best is {values}. Words about "
        "guideline rows are about the loss."
        if found.is_objective
        else f"Watched beside the loss: {name} ({found.direction}), best in {values}."
    ]
    if found.base is not None:
        said.append(f"The untouched base has {name} {found.base:.4f}.")
    if not found.differs:
        said.append(f"The best by loss, trial {other.number}, has {name} {other.metric:.4f} too.")
        return said
    said.append(
        f"The best by loss is not the best by {name}: trial {other.number} has loss "
        f"{loss(other.eval_loss)} and {name} {other.metric:.4f}."
    )
    if (seen := found.comparison) is None or seen.effect is None:
        said.append(f"Whether {name} differs beyond chance is open: `sweeps confirm` runs both again.")
    else:
        interval = "" if seen.low is None else f" ({seen.low:+.4f} to {seen.high:+.4f})"
        said.append(
            f"On {seen.pairs} common seeds trial {best.number} against trial {other.number}: {name} "
            f"{seen.effect:+.4f}{interval}."
        )
    return said
