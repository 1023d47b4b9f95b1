"""What `sweeps status` shows: a running sweep, an interrupted one, or the answer of a finished one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import wrap

from rich.text import Text

from files_and_text.numbers import plural
from results.answer.answer import Answer
from results.text.answer import answer_lines, done_text
from results.text.frozen import frozen_text
from results.text.gaps import short_loss
from sweeps.study.status import RunningTrial, Status
from sweeps.view.phrases import packed, short_settings, shorten, step_text
from sweeps.view.screen import Screen

MAX_ROWS, MAX_PAUSED = 20, 8
"""Running and paused trials that are listed one by one."""


def status_lines(
    status: Status,
    answer: Answer | None,
    *,
    width: int,
    run_folder: str,
    failures: str | None = None,
    report: str = "",
    now: datetime | None = None,
) -> list[Text]:
    """The state of a sweep and what to do next.

    `answer` is that of a sweep that is not running, `run_folder` as on the command line, `failures` which
    trials failed, in words, `report` the path of the report.
    """
    found = list(_running(status, width) if answer is None else _stopped(status, width, now))
    if answer is not None:
        found += [
            Text(line) for each in frozen_lines(status) for line in wrap(each, width, subsequent_indent="  ")
        ]
    if failures is not None:
        found.append(Text(f"Failed: {failures}", style="yellow"))
    if answer is not None:
        done = [f"{done_text(answer.run)}."]
        if status.confirm_runs:
            done.append(f"Confirmation: {plural(status.confirm_runs, 'run')} on new seeds.")
        found += [Text(line) for line in answer_lines(answer, width=width, done=done, report=report)]
    else:
        found += [Text(f"Next  sweeps watch {run_folder}"), Text(f"      sweeps stop {run_folder}")]
    return found


def _running(status: Status, width: int) -> Iterator[Text]:
    yield from Screen().lines(status, width=width, height=min(len(status.running), MAX_ROWS) + 16)
    yield Text()


def _stopped(status: Status, width: int, now: datetime | None) -> Iterator[Text]:
    """When it stopped and which trials are paused where; nothing for a finished sweep."""
    if not status.has_work:
        return
    facts = [f"{status.name}: {stopped_text(status, now or datetime.now(UTC))}"]
    if left := len(status.running):
        facts.append(f"{plural(left, 'trial')} {'waits' if left == 1 else 'wait'} to go on")
    for line in packed(facts, width):
        yield Text(line)
    for trial in status.running[:MAX_PAUSED]:
        yield Text(f"  {shorten(paused_text(trial), width - 2)}")
    if len(status.running) > MAX_PAUSED:
        yield Text(f"  and {len(status.running) - MAX_PAUSED} more")


def frozen_lines(status: Status) -> Iterator[str]:
    """`trial 7: frozen at step 24 of 40: kept on disk, may go on`, with its loss."""
    for trial in status.frozen_trials[:MAX_PAUSED]:
        text = frozen_text(trial.step, trial.max_steps, trial.percent, is_at_rest=trial.state == "at_rest")
        loss = "" if trial.eval_loss is None else f"; loss {short_loss(trial.eval_loss)}"
        yield f"trial {trial.number}: {text}{loss}"
    if len(status.frozen_trials) > MAX_PAUSED:
        yield f"and {len(status.frozen_trials) - MAX_PAUSED} more are frozen"


def stopped_text(status: Status, now: datetime) -> str:
    """`interrupted on 28 Nov at 22:10, 3 min ago`, in local time."""
    if status.ended_at is None:
        return "interrupted"
    local = status.ended_at.astimezone()
    day = "" if local.date() == now.astimezone().date() else f"on {local.day} {local:%b %Y} "
    return f"interrupted {day}at {local:%H:%M}, {ago_text((now - status.ended_at).total_seconds())}"


def ago_text(seconds: float) -> str:
    """`3 min ago`, `2 days ago`: the largest unit alone."""
    for unit, length in (("day", 86400), ("hour", 3600)):
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return f"{int(seconds // 60)} min ago" if seconds >= 60 else "just now"


def paused_text(trial: RunningTrial) -> str:
    """`trial 7 at step 24/40, loss 5.701: lr 5.98e-3, sched constant`."""
    where = step_text(trial.step, trial.max_steps, trial.percent)
    loss = "" if trial.eval_loss is None else f", loss {short_loss(trial.eval_loss)}"
    values = short_settings(trial.values)
    step = "" if trial.step is None else "step "
    return f"trial {trial.number} at {step}{where}{loss}{f': {values}' if values else ''}"
