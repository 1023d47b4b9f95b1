"""Times one keeper on a study of a given size, and Optuna alone beside it."""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
import psutil

from benchmarks.empty_trials.filled_study import PACK, fill
from benchmarks.empty_trials.losses import REDUCTION_FACTOR, REPORT_PERCENTS, SEED, loss_of
from benchmarks.empty_trials.session import empty_study_spec
from lora_runner.config import TrialConfig
from lora_runner.protocol import COMPLETE, Assignment, SeatReport
from sweeps.keeper.keeper import Keeper
from sweeps.plan.specs import StudySpec
from sweeps.study.lease import DriverProcess
from sweeps.study.samplers import make_sampler

MOST_ASKS = 32
LONGEST_SECONDS = 4.0
"""Of all asks together: a slow sampler is asked less often."""
SPARE = 100_000
"""Trials that may still be drawn."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement: seconds, and memory in MiB."""

    storage: str
    sampler: str
    finished: int
    seats: int
    open_seconds: float
    """Until a new keeper has read the study."""
    memory_mib: float
    """Memory of the keeper's process for the study."""
    ask_seconds: float
    """Of drawing, recording and assigning one trial for one free seat."""
    report_seconds: float
    """Of one call with the first reports of a pack, including pruning; nothing is drawn."""
    end_seconds: float
    """Of one call with the last reports of the rest of the pack."""
    status_seconds: float
    optuna_ask_seconds: float
    """`study.ask` of the same parameters, on a study in memory with the same trials."""
    optuna_report_seconds: float
    """`trial.report` and `trial.should_prune`, for as many trials as a pack has."""


def measure(storage: str, url: str, folder: Path, *, sampler: str, finished: int, seats: int) -> Point:
    """Fill the empty storage at `url` and measure, each in its own process."""
    study_spec = empty_study_spec(folder, finished + seats + SPARE)
    study_spec = replace(study_spec, search=study_spec.search | {"sampler": sampler})
    owner = DriverProcess.current("benchmark")
    # In another process: memory freed after filling would hide what the keeper takes.
    _in_own_process(lambda: _prepare(study_spec, url, owner, finished=finished, seats=seats))
    measured = _in_own_process(lambda: _measure(study_spec, url, owner, seats))
    return Point(storage=storage, sampler=sampler, finished=finished, seats=seats, **measured)


def _in_own_process(work: Callable[[], Any]) -> Any:
    """Run `work` in a process of its own; RuntimeError with its traceback if it fails."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_child, args=(theirs, work))
    process.start()
    theirs.close()
    try:
        succeeded, result = ours.recv()
    except EOFError:
        succeeded, result = False, "a measuring process died"
    process.join()
    if not succeeded:
        raise RuntimeError(result)
    return result


def _in_child(pipe: Connection, work: Callable[[], Any]) -> None:
    try:
        pipe.send((True, work()))
    except BaseException:
        pipe.send((False, traceback.format_exc()))


def _measure(study_spec: StudySpec, url: str, owner: DriverProcess, seats: int) -> dict[str, float]:
    before, started = _memory(), time.perf_counter()
    keeper = Keeper(study_spec, url, owner)
    open_seconds = time.perf_counter() - started
    gc.collect()
    memory = _memory() - before
    trials = keeper.study.get_trials(deepcopy=False)
    pack = [t for t in trials if t.state.name == "RUNNING" and t.user_attrs.get("worker") == 0]
    asking = seats // PACK + 1  # a worker whose seats are all free
    asks = _each(lambda index: keeper.ask(asking, [index]))
    status_seconds = _timed(keeper.status)
    # Otherwise reports would also draw trials for the seats they free, which the asks measure.
    keeper.request_stop()
    given = [
        Assignment(number=t.number, config=TrialConfig.from_dict(t.user_attrs["config"]), folder="")
        for t in pack
    ]
    first = [_report(a, REPORT_PERCENTS[0]) for a in given]
    report_seconds = _timed(lambda: keeper.report(0, first, [], 0.0))
    last = [_report(a, 100).ended(COMPLETE, "used its full budget of nothing") for a in given]
    end_seconds = _timed(lambda: keeper.report(0, last, [], 0.0))
    keeper.close()
    optuna_ask, optuna_report = _optuna(study_spec, trials, len(pack))
    return {
        "open_seconds": open_seconds,
        "memory_mib": memory,
        "ask_seconds": asks,
        "report_seconds": report_seconds,
        "end_seconds": end_seconds,
        "status_seconds": status_seconds,
        "optuna_ask_seconds": optuna_ask,
        "optuna_report_seconds": optuna_report,
    }


def _prepare(study_spec: StudySpec, url: str, owner: DriverProcess, *, finished: int, seats: int) -> None:
    """Make a study with a few real trials and many copies."""
    keeper = Keeper(study_spec, url, owner)
    reply = keeper.ask(0, range(PACK))
    keeper.study.pruner = optuna.pruners.NopPruner()  # seats of pruned trials would be filled again
    for percent in REPORT_PERCENTS:
        reports = []
        for placed in reply.start:
            report = _report(placed.assignment, percent)
            reports.append(report.ended(COMPLETE, "used its full budget") if percent == 100 else report)
        keeper.report(0, reports, [], 0.0)
    keeper.close()
    trials = keeper.study.get_trials(deepcopy=False)
    patterns = [t for t in trials if t.state.is_finished() and t.user_attrs.get("origin") == "sampler"]
    left = max(0, finished - sum(t.state.is_finished() for t in trials))
    fill(url, patterns, finished=left, seats=seats, run=owner.run)


def _optuna(study_spec: StudySpec, trials: list[Any], num_reports: int) -> tuple[float, float]:
    """Return Optuna's seconds per ask and per pack of reports, in memory, which is fastest."""
    study = optuna.create_study(
        sampler=make_sampler(study_spec.search, study_spec.space, SEED),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=REPORT_PERCENTS[0], reduction_factor=REDUCTION_FACTOR
        ),
    )
    study.add_trials([trial for trial in trials if trial.state.name != "WAITING"])
    asked = []

    def ask(_: int) -> None:
        trial = study.ask()
        params = study_spec.space.suggest(trial)
        asked.append((trial, float(params["learning_rate"])))

    ask_seconds = _each(ask)
    started = time.perf_counter()
    for trial, rate in asked:
        trial.report(loss_of(rate, REPORT_PERCENTS[0]), REPORT_PERCENTS[0])
        trial.should_prune()
    return ask_seconds, (time.perf_counter() - started) / len(asked) * num_reports


def _report(assignment: Assignment, percent: int) -> SeatReport:
    loss = loss_of(assignment.config.learning_rate, percent)
    return replace(SeatReport.empty(assignment), percent=percent, step=percent, eval_loss=loss)


def _each(call: Callable[[int], Any]) -> float:
    """Return the mean seconds of up to `MOST_ASKS` calls."""
    started = time.perf_counter()
    for index in range(MOST_ASKS):
        call(index)
        if (seconds := time.perf_counter() - started) > LONGEST_SECONDS:
            break
    return seconds / (index + 1)


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _memory() -> float:
    """Return the memory of this process, in MiB."""
    return float(psutil.Process().memory_full_info().uss) / 2**20
