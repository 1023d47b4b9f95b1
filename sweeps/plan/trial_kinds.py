"""Where the values of a sweep's trials come from: the tables, chance, the sampler."""

from __future__ import annotations

from dataclasses import replace

from files_and_text.numbers import plural
from lora_runner.errors import TrialConfigError
from search_spaces.search_space import FirstTrial
from sweeps.plan.specs import StudySpec

MOST_FROM_TABLES = 0.25
"""The share of a sweep's trials that may take the tables' own values."""
STARTUP_TRIALS = {"tpe": 10, "gp": 10, "cmaes": 1, "curve_gp": 8}
"""Trials that have to finish (for curve_gp: to report) before these samplers model anything, by their own
defaults."""


def first_trials(study_spec: StudySpec) -> list[FirstTrial]:
    """The tables' own values that a sweep runs first, the guideline default and then the most telling ones.

    At most a quarter of the trials, so that the search has the rest: `sweeps confirm` tries the values of all
    rows, on several seeds. Before a grid there is only the guideline default, with which every verdict
    compares. Equal configurations are one trial: 3% and 5% of 40 steps are both two steps of warmup.
    """
    is_grid = study_spec.search["sampler"] == "grid"
    count = 1 if is_grid else max(1, int(study_spec.trials * MOST_FROM_TABLES))
    distinct: dict[str, FirstTrial] = {}
    for first in study_spec.space.first_trials:
        try:
            key = study_spec.trial_config(first.params).hash()
        except TrialConfigError:
            key = repr(first.params)  # it fails with its reason when it is drawn
        same = distinct.setdefault(key, first)
        rows = (*same.rows, *(row for row in first.rows if row not in same.rows))
        distinct[key] = replace(same, rows=rows)
    return list(distinct.values())[:count]


def trial_kinds(study_spec: StudySpec) -> str:
    """`7 with the tables' values, then 25 by tpe (at random until 10 have finished)`."""
    sampler = study_spec.search["sampler"]
    num_first = len(first_trials(study_spec))
    rest = study_spec.trials - num_first
    tables = f"{num_first} with the tables' values"
    if rest <= 0:
        return tables
    if sampler == "grid":
        return f"{tables}, then {plural(rest, 'point')} of the grid"
    if sampler == "random":
        return f"{tables}, then {rest} at random"
    startup = study_spec.search["startup_trials"]
    startup = STARTUP_TRIALS[sampler] if startup is None else startup
    if startup >= study_spec.trials:
        return f"{tables}, then {rest} at random ({sampler} begins after {startup})"
    # curve_gp spreads its first draws evenly, and learns from reports of trials that still run.
    how, until = ("spread evenly", "reported") if sampler == "curve_gp" else ("at random", "finished")
    chance = f" ({how} until {startup} have {until})" if startup > 1 else ""
    return f"{tables}, then {rest} by {sampler}{chance}"


def trial_counts(study_spec: StudySpec) -> dict[str, int]:
    """Trials with the tables' values, those drawn at random before the sampler models, and the sampler's."""
    sampler, tables = study_spec.search["sampler"], len(first_trials(study_spec))
    rest = max(0, study_spec.trials - tables)
    startup = study_spec.search["startup_trials"]
    startup = STARTUP_TRIALS.get(sampler, 0) if startup is None else startup
    # Random search and a grid have no such phase.
    at_random = min(rest, max(0, startup - tables)) if sampler in STARTUP_TRIALS else 0
    return {"tables": tables, "startup": at_random, "sampler": rest - at_random}
