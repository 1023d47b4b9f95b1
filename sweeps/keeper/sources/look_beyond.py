"""Before a draw: whether the best has an unexplored side, to which the next trial goes, or lies at an end."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from files_and_text.numbers import number
from results.stored_trials import is_frozen, search_trials
from search_spaces import SearchSpace
from sweeps.plan.specs import StudySpec
from sweeps.study.edges.open_side import OpenSide, open_side
from sweeps.study.edges.widening import next_widening, record_widening, widenings_of
from sweeps.study.study import COUNTED_STATES

BESIDE_BEST = "beside the best"
"""The `origin` of a trial that tries the unexplored side of the best."""
SAMPLERS = ("tpe", "gp", "cmaes", "curve_gp")
"""Random search and a grid are asked for as what they are."""
MIN_FINISHED, SHARE_FINISHED = 6, 1 / 3
"""Trials that end or are frozen first, at least, and as a share of the sweep's: an earlier best is chance."""
MAX_SHARE = 1 / 8
"""Of a sweep's trials that may go beside the best, and at least two."""


def look_beyond(study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> SearchSpace:
    """Widen the space or enqueue a trial where the best asks for it; returns the space to draw from."""
    space = study_spec.space
    if not study_spec.search.get("widen_edges") or study_spec.search["sampler"] not in SAMPLERS:
        return space
    trials = search_trials(study)
    # A frozen trial has told as much as a pruned one; it ends only with the sweep.
    finished = sum(trial.state in COUNTED_STATES or is_frozen(trial) for trial in trials)
    if finished < max(MIN_FINISHED, SHARE_FINISHED * study_spec.trials):
        return space
    minimums = [float(kwargs.get("min_lr") or 0.0) for kwargs in study_spec.scheduler_kwargs.values()]
    widening = next_widening(
        trials, space, widenings_of(study), finished=finished, lowest_rate=max(minimums, default=0.0)
    )
    if widening is not None:
        note(str(widening))
        space = record_widening(study, widening, space)
    beside = sum(trial.user_attrs.get("origin") == BESIDE_BEST for trial in trials)
    side = open_side(trials, space, "learning_rate")
    if side is not None and beside < max(2, int(study_spec.trials * MAX_SHARE)):
        label = _label(side)
        note(f"nothing was tried {label}: the next trial takes {number(float(side.value))}")
        study.enqueue_trial(side.params, user_attrs={"origin": BESIDE_BEST, "label": label})
    return space


def _label(side: OpenSide) -> str:
    where = "above" if side.side == "high" else "below"
    return f"{where} the {side.dimension} of the best so far, trial {side.best}"
