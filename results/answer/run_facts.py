"""How a sweep was run: trials, time, device and throughput, from what its study holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from statistics import median

from results.answer.answer import RunFacts
from results.stored_trials import FROZEN
from results.sweep_result import SweepResult, TrialResult

_NOT_COUNTED = ("running", "waiting", "failed")


def read_run_facts(sweep: SweepResult, *, run_folder: str, target: int | None = None) -> RunFacts:
    """The facts; `target` is the number of finished trials that the sweep asks for."""
    counts = Counter(trial.outcome for trial in sweep.trials)
    ended = sum(trial.outcome not in _NOT_COUNTED and not _may_go_on(trial) for trial in sweep.trials)
    seconds = sweep.run_seconds or busy_seconds((t.started, t.ended) for t in sweep.trials)
    tokens = sum(trial.num_tokens or 0 for trial in sweep.trials)
    full = [t.wall_seconds for t in sweep.trials if t.eval_loss is not None and t.wall_seconds is not None]
    return RunFacts(
        run_folder=run_folder,
        finished=ended,
        target=target,
        outcomes=dict(sorted(counts.items())),
        is_unfinished=any(map(_may_go_on, sweep.trials))
        or _is_unfinished(counts, ended, target, is_exhausted=sweep.is_exhausted),
        seconds=seconds,
        devices=tuple(sweep.devices),
        tokens_per_second=tokens / seconds if seconds and tokens else None,
        trial_seconds=median(full) if full else None,
        seats=len({(t.worker, t.seat) for t in sweep.trials if t.worker is not None}) or 1,
    )


def seconds_of(run: RunFacts, runs: int) -> float | None:
    """About how long so many runs with the full budget take side by side; None where no trial told."""
    return None if run.trial_seconds is None else run.trial_seconds * math.ceil(runs / run.seats)


def busy_seconds(spans: Iterable[tuple[datetime | None, datetime | None]]) -> float | None:
    """Seconds that at least one span covers; spans without an end are left out. None without a span."""
    whole = sorted((start, end) for start, end in spans if start is not None and end is not None)
    if not whole:
        return None
    seconds, until = 0.0, whole[0][0]
    for start, end in whole:
        seconds += max((end - max(start, until)).total_seconds(), 0.0)
        until = max(until, end)
    return seconds


def _may_go_on(trial: TrialResult) -> bool:
    """Whether it is frozen in a sweep that has not ended."""
    return trial.outcome == FROZEN and not trial.is_at_rest


def _is_unfinished(counts: Counter[str], ended: int, target: int | None, *, is_exhausted: bool) -> bool:
    if counts["running"]:
        return True
    if target is None:
        return bool(counts["waiting"])
    return ended < target and not is_exhausted
