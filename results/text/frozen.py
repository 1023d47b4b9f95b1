"""Where a trial was frozen, and what becomes of it."""

from __future__ import annotations

from files_and_text.numbers import plural
from results.stored_trials import FROZEN
from results.sweep_result import TrialResult

IF_MORE = " if `trials` is raised"


def frozen_text(step: int | None, max_steps: int | None, percent: int | None, *, is_at_rest: bool) -> str:
    """`frozen at step 24 of 40: kept on disk, may go on`; at rest only if `trials` is raised."""
    where = f" at {percent}%" if percent is not None else ""
    if step is not None:
        where = f" at step {step}" + (f" of {max_steps}" if max_steps else "")
    return f"frozen{where}: kept on disk, may go on{IF_MORE if is_at_rest else ''}"


def outcome_text(trial: TrialResult) -> str:
    """`out of memory`, `complete`; of a frozen trial `frozen_text`."""
    if trial.outcome != FROZEN:
        return trial.outcome.replace("_", " ")
    budget = trial.config.get("max_steps")
    return frozen_text(trial.num_steps, budget, trial.percent, is_at_rest=trial.is_at_rest)


def kept_text(count: int) -> str:
    """What a sweep that has ended keeps of its frozen trials; "" without any."""
    if not count:
        return ""
    verb = "keeps its checkpoint" if count == 1 else "keep their checkpoints"
    return f"{plural(count, 'frozen trial')} {verb} and may go on{IF_MORE}."
