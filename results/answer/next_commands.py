"""The commands that make sense after what a sweep has shown so far."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from results.answer.answer import NextCommand, RunFacts, Sure
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.statistics import MIN_PAIRS

_MORE_SEEDS = 3
"""Seeds that a further confirmation adds."""


def next_commands(
    run: RunFacts, *, sure: Sure, has_best: bool, compared: ArmComparisons | None
) -> list[NextCommand]:
    """The most useful first; none that can only fail. `compared` is the confirmation of the present best."""
    found = [NextCommand(command=f"sweeps run {_path(run)}", why="continue")] if run.is_unfinished else []
    if has_best:
        found += _confirm(run, sure, compared)
    if has_best and sure not in ("default_better", "best_loses_runs"):
        # An export writes the sweep's best, which is not what to use then.
        found.append(NextCommand(command=f"sweeps export {_path(run)} --to trl", why="export"))
    return found


def _confirm(run: RunFacts, sure: Sure, compared: ArmComparisons | None) -> Iterator[NextCommand]:
    if run.is_unfinished:
        return  # the best can still change, and with it what has to be run again
    start = f"sweeps confirm {_path(run)}"
    if sure == "one_run":
        runs = 2 * MIN_PAIRS
        yield _timed(run, f"{start} --no-rows --trials {runs}", runs)
    elif sure == "best_changed":
        runs = 2 * MIN_PAIRS
        yield _timed(run, f"{start} --anew --no-rows --trials {runs}", runs)
    elif sure in ("too_few_seeds", "open") and compared is not None:
        arms = len(compared.arms)
        has_rows = any(arm.arm.role in ("row", "one_rate") for arm in compared.arms)
        runs = arms * (max(arm.runs for arm in compared.arms) + _MORE_SEEDS)
        done = sum(arm.runs for arm in compared.arms)
        yield _timed(run, f"{start}{'' if has_rows else ' --no-rows'} --trials {runs}", runs - done)


def _timed(run: RunFacts, command: str, runs: int) -> NextCommand:
    each = run.trial_seconds
    seconds = None if each is None else each * math.ceil(runs / run.seats)
    return NextCommand(command=command, why="confirm", seconds=seconds)


def _path(run: RunFacts) -> str:
    return shlex.quote(run.run_folder)
