"""Everything that a report shows, read once from the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.hyperparameter_importance import Importance, read_importance
from results.stored_trials import search_trials
from results.sweep_result import SweepResult, read_study, study_hash
from results.verdict.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """A sweep as its report shows it."""

    sweep: SweepResult
    verdict: Verdict | None
    """None before the first trial was drawn."""
    answer: Answer
    """The numbers that every place shows."""
    sign_details: Mapping[int, Sequence[Mapping[str, Any]]]
    """Trial number -> its stability signs as recorded: sign, step, detail."""
    importance: Importance
    study_hash: str
    sweep_file: str
    """The resolved sweep file's text; "" when there is none."""


def read_facts(
    study: optuna.Study,
    verdict: Verdict | None,
    *,
    sweep_file: str = "",
    run_folder: str = "",
    target: int | None = None,
) -> ReportFacts:
    """Read a study at any point of its sweep; `verdict` is the one that the report shows."""
    trials = search_trials(study)
    sweep = read_study(study)
    return ReportFacts(
        sweep=sweep,
        verdict=verdict,
        answer=read_answer(
            sweep, verdict, run_folder=run_folder or f"runs/{study.study_name}", target=target
        ),
        sign_details={t.number: list(t.user_attrs.get("signs") or ()) for t in trials},
        importance=read_importance(study),
        study_hash=study_hash(study),
        sweep_file=sweep_file,
    )
