"""What the watch page says of a sweep, as plain text; the templates only place it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

from files_and_text.numbers import duration, plural
from results.sweep_result import TrialResult
from results.text.answer import base_text, done_text, headline, next_text, settings_text, sure_text
from results.text.frozen import kept_text, outcome_text
from results.text.gaps import gap_text, loss_text, short_loss
from sweeps.study.status import RunningTrial, Status
from sweeps.view.phrases import (
    best_text,
    counts_text,
    event_text,
    is_start,
    left_text,
    speed_text,
    stage_text,
    step_text,
    warning_texts,
)
from sweeps.view.status_text import stopped_text
from sweeps.watch.snapshot import Snapshot

SHOWN_EVENTS = 12
SHOWN_TRIALS = 32
"""Unfinished trials in the table; a pack may have more seats."""
_LOSS_UNIT = "nats per token"


@dataclass(frozen=True, kw_only=True)
class Word:
    """The state in one or two words."""

    text: str
    tone: str
    """good | unsure | bad, as the report's badges."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    label: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class UnfinishedRow:
    """A trial that has started and not ended."""

    number: int
    settings: str
    step: str
    percent: int
    train_loss: str
    eval_loss: str
    seat: str
    note: str
    """`leads`, `paused`; "" for most."""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial that has ended."""

    number: int
    loss: str
    outcome: str
    settings: str


@dataclass(frozen=True, kw_only=True)
class Command:
    text: str
    why: str


def state_word(snapshot: Snapshot) -> Word:
    """What the sweep is doing."""
    is_confirm = snapshot.status is not None and snapshot.status.task == "confirm"
    match snapshot.state:
        case "not_started":
            return Word(text="Not started", tone="unsure")
        case "starting":
            return Word(text="Starting", tone="good")
        case "running":
            return Word(text="Confirming" if is_confirm else "Running", tone="good")
        case "stopping":
            return Word(text="Stopping", tone="unsure")
        case "interrupted":
            return Word(text="Interrupted", tone="unsure")
    return Word(text="Finished", tone="good")


def facts(snapshot: Snapshot) -> list[str]:
    """Counts, times, device and speed, as far as they are known."""
    status, answer = snapshot.status, snapshot.answer
    if status is None:
        return []
    if snapshot.state == "finished" and answer is not None:
        kept = kept_text(len(status.frozen_trials)).removesuffix(".")
        return [done_text(answer.run), *([kept] if kept else [])]
    found = [counts_text(status)]
    seconds = status.elapsed_seconds if snapshot.is_live else status.run_seconds or 0.0
    if seconds >= 1:
        text = duration(seconds)
        found.append(f"started {text} ago" if snapshot.is_live else f"ran for {text}")
    devices = status.devices or ([] if answer is None else list(answer.run.devices))
    found += [text for text in (left_text(status), " and ".join(devices), speed_text(status)) if text]
    return found


def notices(snapshot: Snapshot) -> list[str]:
    """What a person has to know now."""
    status, found = snapshot.status, []
    if snapshot.problem:
        since = "" if snapshot.read_at is None else f" since {snapshot.read_at:%H:%M:%S}"
        found.append(
            f"The study cannot be read{since}: {snapshot.problem}. What is shown is what was read last; "
            "it is tried again every few seconds."
        )
    if status is None:
        return found
    if snapshot.state == "stopping":
        found.append("Asked to stop: running trials write their checkpoints and end.")
    if snapshot.state == "interrupted":
        found.append(_stopped(status))
    found += [_sentence(text) for text in warning_texts(status)]
    return found


def stage_lines(snapshot: Snapshot) -> list[str]:
    """What is being done that is not training, such as loading the base."""
    if snapshot.status is None or not snapshot.is_live:
        return []
    return [_sentence(stage_text(stage)) for stage in snapshot.status.stages]


def _stopped(status: Status) -> str:
    text = _sentence(stopped_text(status, datetime.now(UTC)))
    if waiting := len(status.running):
        text += (
            f" {plural(waiting, 'trial')} {'waits' if waiting == 1 else 'wait'} to go on; nothing is lost."
        )
    return text


def unfinished_rows(snapshot: Snapshot) -> list[UnfinishedRow]:
    """The trials that train or wait for a seat, in the order of their seats."""
    status = snapshot.status
    if status is None:
        return []
    leader = None if status.leader is None else status.leader.number
    ordered = sorted(status.running, key=lambda trial: (trial.worker or 0, trial.seat or 0, trial.number))
    return [
        _unfinished(trial, is_leader=trial.number == leader, is_live=snapshot.is_live)
        for trial in ordered[:SHOWN_TRIALS]
    ]


def _unfinished(trial: RunningTrial, *, is_leader: bool, is_live: bool) -> UnfinishedRow:
    notes = ["leads"] if is_leader else []
    notes += [trial.state] if is_live and trial.state != "training" else []
    has_seat = trial.worker is not None and trial.seat is not None
    return UnfinishedRow(
        number=trial.number,
        settings=settings_text(trial.values),
        step=step_text(trial.step, trial.max_steps, trial.percent),
        percent=trial.percent,
        train_loss="" if trial.train_loss is None else short_loss(trial.train_loss),
        eval_loss="" if trial.eval_loss is None else short_loss(trial.eval_loss),
        seat=f"worker {trial.worker}, seat {trial.seat}" if has_seat else "",
        note=", ".join(notes),
    )


def headline_of(snapshot: Snapshot) -> str:
    """The answer in one sentence, or what there is instead."""
    answer, status = snapshot.answer, snapshot.status
    if answer is not None and answer.best is not None:
        return headline(answer)
    if status is not None and (leader := best_text(status)):
        return f"No trial has finished its full budget yet. Leading now: loss {leader}."
    if answer is not None and not answer.run.is_unfinished:
        return headline(answer)
    return "No answer yet: the first evaluation is to come." if snapshot.is_live else "No answer yet."


def answer_tiles(snapshot: Snapshot) -> list[Tile]:
    """The best loss, what the guideline default costs against it, and the untouched base."""
    answer = snapshot.answer
    if answer is None or answer.best is None:
        return []
    best, default, base = answer.best, answer.default, answer.base
    tiles = [Tile(label="Best loss", value=loss_text(best.loss), detail=f"{_LOSS_UNIT}; trial {best.trial}")]
    if answer.metric and best.metric is not None:
        tiles.append(Tile(label=answer.metric, value=f"{best.metric:.4g}", detail=f"of trial {best.trial}"))
    if default.trial == best.trial:
        tiles.append(Tile(label="Guideline default", value="the best", detail="it is the best trial itself"))
    elif default.loss is not None and default.gap is not None:
        detail = f"loss {loss_text(default.loss)}; trial {default.trial}"
        tiles.append(Tile(label="Guideline default costs", value=gap_text(default.gap), detail=detail))
    if base.loss is not None and base.gap is not None:
        detail = f"loss {base_text(answer)}; without training"
        tiles.append(Tile(label="Untouched base costs", value=gap_text(base.gap), detail=detail))
    if (merged := answer.merged) is not None:
        cost = "" if merged.gap is None else f"{gap_text(merged.gap)} against the best; "
        label, detail = f"Merged in {merged.dtype}", f"{cost}{merged.folder}"
        tiles.append(Tile(label=label, value=short_loss(merged.loss), detail=detail))
    return tiles


def sure_of(snapshot: Snapshot) -> str:
    """How sure the answer is; "" while there is none."""
    answer = snapshot.answer
    return "" if answer is None or answer.best is None else sure_text(answer)


def commands(snapshot: Snapshot) -> list[Command]:
    """What to do next; nothing while the sweep runs."""
    if snapshot.is_live:
        return []
    if snapshot.answer is None:
        return [Command(text=f"sweeps run {shlex.quote(snapshot.run_folder)}", why="start it")]
    return [Command(text=one.command, why=next_text(one)) for one in snapshot.answer.next]


def event_lines(snapshot: Snapshot) -> list[str]:
    """The last events that say more than that a trial has started, the newest first."""
    events = [] if snapshot.status is None else snapshot.status.events
    told = [event_text(event, snapshot.status) for event in events if not is_start(event)]
    return told[: -SHOWN_EVENTS - 1 : -1]


def trial_rows(snapshot: Snapshot) -> list[TrialRow]:
    """Trials that have ended: complete ones best first, then those that ended early."""
    if snapshot.sweep is None:
        return []
    ended = [trial for trial in snapshot.sweep.trials if trial.outcome not in ("running", "waiting")]
    ended.sort(key=lambda t: (t.eval_loss is None, t.eval_loss or t.last_eval_loss or 0.0, t.number))
    names = [name for name, dimension in snapshot.sweep.dimensions.items() if not dimension.fixed]
    return [_trial_row(trial, names) for trial in ended]


def _trial_row(trial: TrialResult, names: list[str]) -> TrialRow:
    shown = trial.eval_loss if trial.eval_loss is not None else trial.last_eval_loss
    text = "" if shown is None else short_loss(shown)
    return TrialRow(
        number=trial.number,
        loss=text if trial.eval_loss is not None or not text else f"({text})",
        outcome=outcome_text(trial),
        settings=settings_text({name: trial.values[name] for name in names if name in trial.values}),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
