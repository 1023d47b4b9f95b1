"""How a run of a sweep ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from files_and_text.shown import Shown
from results.answer.answer import Answer
from results.text.answer import loss_text, sure_text, use_text
from sweeps.console import shown_path
from sweeps.study.status import Status


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """How a run ended."""

    status: Status
    interrupted: bool
    added: int
    """Trials that this run finished."""
    run_folder: Path
    failures: str | None = None
    """What failed and has not been made up for, in words."""
    answer: Answer | None = None
    """That of the whole sweep, as far as it has got."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        status, facts = self.status, dict[str, str]()
        if self.answer is not None and self.answer.best is not None:
            facts["use"], facts["loss"] = use_text(self.answer), loss_text(self.answer.best.loss)
            facts["how sure"] = sure_text(self.answer)
        facts["folder"] = str(shown_path(self.run_folder))
        how = "was interrupted" if self.interrupted else "has ended"
        return f"The run {how}: {status.finished} of {status.target} trials, {self.added} in this run", facts
