"""The commands that make sense after what a sweep has shown so far."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from results.answer.answer import NextCommand, RunFacts, Sure
from results.answer.run_facts import seconds_of
from results.comparison.constants import DEFAULT_RUNS, MIN_PAIRS
from results.verdict.arm_comparisons import ArmComparisons

_MORE_SEEDS = 3
"""Seeds that a further confirmation adds."""


def next_commands(
    run: RunFacts, *, sure: Sure, finished: int, has_default: bool, compared: ArmComparisons | None
) -> list[NextCommand]:
    """The most useful first; none that can only fail. `finished` counts trials with a loss at the
    full budget, `compared` is the confirmation of the present best."""
    found = [NextCommand(command=f"sweeps run {_path(run)}", why="continue")] if run.is_unfinished else []
    if finished:
        found += _confirm(run, sure, compared, finished=finished, has_default=has_default)
    if finished and sure not in ("default_better", "best_loses_runs"):
        # An export writes the sweep's best, which is not what to use then.
        found.append(NextCommand(command=f"sweeps export {_path(run)} --to trl", why="export"))
    return found


def rows_command(run: RunFacts, compared: ArmComparisons, *, is_confirmed: bool) -> NextCommand:
    """The command that runs the tables' values one by one on new seeds.

    A present confirmation of the default alone has other configurations and cannot be continued to that
    (`is_confirmed`: whether there is one).
    """
    done = sum(arm.runs for arm in compared.arms) if _has_rows(compared) else 0
    runs = max(DEFAULT_RUNS, done + _MORE_SEEDS * len(compared.arms))
    anew = " --anew" if is_confirmed and not _has_rows(compared) else ""
    command = f"sweeps confirm {_path(run)}{anew} --trials {runs}"
    return _timed(run, command, runs - done, why="confirm_rows")


def _has_rows(compared: ArmComparisons) -> bool:
    return any(arm.arm.role not in ("best", "guideline_default") for arm in compared.arms)


def _confirm(
    run: RunFacts, sure: Sure, compared: ArmComparisons | None, *, finished: int, has_default: bool
) -> Iterator[NextCommand]:
    if run.is_unfinished:
        return  # the best can still change, and with it what has to be run again
    start = f"sweeps confirm {_path(run)}"
    if sure in ("one_run", "best_changed"):
        if not has_default and finished < 2:
            return  # nothing to compare the best with
        runs = 2 * MIN_PAIRS
        anew = " --anew" if sure == "best_changed" else ""
        two = "" if has_default else " --best 2"
        why = "confirm" if has_default else "confirm_two"
        yield _timed(run, f"{start}{anew}{two} --no-rows --trials {runs}", runs, why=why)
    elif sure in ("too_few_seeds", "open") and compared is not None:
        arms = len(compared.arms)
        runs = arms * (max(arm.runs for arm in compared.arms) + _MORE_SEEDS)
        done = sum(arm.runs for arm in compared.arms)
        yield _timed(
            run, f"{start}{'' if _has_rows(compared) else ' --no-rows'} --trials {runs}", runs - done
        )


def _timed(run: RunFacts, command: str, runs: int, *, why: str = "confirm") -> NextCommand:
    return NextCommand(command=command, why=why, seconds=seconds_of(run, runs))


def _path(run: RunFacts) -> str:
    return shlex.quote(run.run_folder)
