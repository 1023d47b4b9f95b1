"""What the untouched base, the guideline default and the best wrote for the same prompts."""

from __future__ import annotations

from results.answer.answer import Sample
from results.sweep_result import SweepResult, TrialResult


def read_samples(sweep: SweepResult, best: TrialResult | None) -> list[Sample]:
    """One for each prompt; empty where the study holds none."""
    kept = sweep.base_samples
    default = sweep.guideline_default
    is_best = default is not None and best is not None and default.number == best.number
    return [
        Sample(
            prompt=prompt,
            reference=reference,
            base=base,
            default=None if is_best else _text(default, index),
            best=_text(best, index),
        )
        for index, (prompt, reference, base) in enumerate(
            zip(kept.get("prompts", ()), kept.get("answers", ()), kept.get("generations", ()), strict=False)
        )
    ]


def _text(trial: TrialResult | None, index: int) -> str | None:
    """None for a trial that did not finish, or whose text could not be sampled."""
    return None if trial is None or index >= len(trial.generations) else trial.generations[index]
