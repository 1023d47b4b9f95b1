"""What a requested stop is doing, in a sentence."""

from __future__ import annotations

from files_and_text.numbers import duration, plural
from sweeps.study.status import Status
from sweeps.view.phrases import noun


def stop_text(status: Status | None) -> str:
    """What happens after Ctrl-C or SIGTERM, how long it may take, and what a second one does."""
    training = [trial for trial in status.running if trial.state == "training"] if status is not None else []
    if status is None or not training:
        return "Stopping. Ctrl-C again ends it at once."
    seconds = "" if status.stop_seconds is None else f", about {duration(max(1.0, status.stop_seconds))}"
    lost = "what came since the last checkpoints"
    if status.steps_at_risk is not None:
        lost = f"at most {plural(status.steps_at_risk, 'step')} each"
    verb = "writes a checkpoint" if len(training) == 1 else "write checkpoints"
    trials = f"{plural(len(training), 'run' if noun(status) == 'run' else 'running trial')} {verb}"
    return f"Stopping: {trials}{seconds}. Ctrl-C again ends it at once and loses {lost}."
