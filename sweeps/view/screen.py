"""What the live view draws: bar, speed, stages of a start, running trials, the best so far, last events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.text import Text

from files_and_text.numbers import duration
from sweeps.study.status import ArmProgress, Stage, Status
from sweeps.view.phrases import (
    arm_text,
    beside_best,
    best_text,
    counts_text,
    is_start,
    left_text,
    noun,
    packed,
    short_settings,
    shorten,
    speed_text,
    stage_text,
    warning_texts,
)
from sweeps.view.trial_lines import Bars, TrialLines

SHOWN_EVENTS = 4
MAX_WARNINGS, MAX_NOTICE_LINES = 3, 3
STAGE_BAR, SWEEP_BAR = 16, 12
"""Cells of a stage's bar, and the fewest of the sweep's."""


class Screen:
    """Draws a sweep into a terminal of any size: one line per fact, none wider than the terminal.

    Room once taken by running trials stays theirs, so that the lines below do not jump when a seat is free.
    """

    def __init__(self, bars: Bars | None = None) -> None:
        self._bars = bars or Bars()
        self._trials = TrialLines(self._bars)
        self._rows = 0

    def lines(
        self,
        status: Status,
        *,
        width: int,
        height: int,
        events: Sequence[str] = (),
        stages: Sequence[Stage] = (),
        notice: str = "",
    ) -> list[Text]:
        """At most `height` lines of at most `width` cells.

        `events`: last ones, with their times; `stages`: of the driver, beside those of the workers; `notice`:
        what the user has to know now, such as what a requested stop is doing.
        """
        head = [self._title(status, width), *self._facts(status, width)]
        head += [Text(line, style="bold yellow") for line in wrap(notice, width)[:MAX_NOTICE_LINES]]
        warnings = list(warning_texts(status))[:MAX_WARNINGS]
        head += [Text(shorten(f"! {text}", width), style="yellow") for text in warnings]
        started = [self._stage(stage, width) for stage in (*stages, *status.stages)]
        best = list(self._best(status, width))
        best += self._arms(status.arms, width, max(2, height // 3))
        last = [Text(shorten(event, width), style="dim") for event in shown_events(events)]
        room = height - len(head) - len(best) - (1 if best else 0) - (1 if status.running else 0)
        started = started[: max(1, room - 2)]
        room -= len(started)
        last = last[-min(SHOWN_EVENTS, max(1, room - len(status.running) - 3)) :]
        room -= len(last) + (1 if last else 0)
        leader = status.leader.number if status.leader is not None else None
        trials = self._trials.lines(
            status.running, leader, width=width, rows=max(1, room - 1), noun=noun(status)
        )
        self._rows = min(max(self._rows, len(trials)), max(0, room))
        trials += [Text()] * (self._rows - len(trials))
        blocks = [head, started + ([Text(), *trials] if trials else []), _apart(best), _apart(last)]
        found = [line for block in blocks for line in block]
        for line in found:
            line.no_wrap, line.overflow = True, "crop"
        return found[:height]

    def _title(self, status: Status, width: int) -> Text:
        """Name, bar, trials finished."""
        counts = counts_text(status)
        if len(counts) > width - SWEEP_BAR - 12:
            counts = counts.partition(" (")[0]
        name = shorten(status.name, max(8, min(28, width - len(counts) - SWEEP_BAR - 4)))
        cells = max(0, width - len(name) - len(counts) - 4)
        line = Text.assemble((name, "bold"), "  ")
        if cells >= 4:
            line.append_text(self._bars.bar(status.finished / max(1, status.target), cells))
            line.append("  ")
        line.append(counts)
        line.truncate(width, overflow="crop")
        return line

    def _facts(self, status: Status, width: int) -> Iterator[Text]:
        """Time, time left, speed and devices."""
        elapsed = f"started {duration(status.elapsed_seconds)} ago" if status.elapsed_seconds else ""
        facts = [elapsed, left_text(status), speed_text(status), " and ".join(status.devices)]
        if status.seat_busy_share is not None:
            facts.append(f"seats busy {status.seat_busy_share:.0%}")
        for line in packed(filter(None, facts), width)[:1]:
            yield Text(line)

    def _stage(self, stage: Stage, width: int) -> Text:
        seconds = f"  {duration(stage.seconds)}"
        text = shorten(stage_text(stage), width - len(seconds))
        line = Text(text, style="cyan")
        if stage.total and len(text) + len(seconds) + STAGE_BAR + 2 <= width:
            line = Text.assemble((text, "cyan"), "  ", self._bars.bar(stage.done / stage.total, STAGE_BAR))
        return line.append(seconds, style="dim")

    def _best(self, status: Status, width: int) -> Iterator[Text]:
        """The best so far and what it is compared with; then the values that it has."""
        leading = best_text(status)
        label = "" if not leading else "Best  " if status.best is not None else "Leads "
        facts = [*filter(None, [leading]), *beside_best(status)]
        for line in packed(facts, width - len(label))[:1]:
            yield Text.assemble((label, "bold green"), line)
        if leading and status.best is not None and (values := short_settings(status.best["values"])):
            yield Text(f"      {shorten(values, width - 6)}")

    def _arms(self, arms: Sequence[ArmProgress], width: int, rows: int) -> Iterator[Text]:
        """A line for each configuration of a confirmation, as far as there is room."""
        left = max(0, len(arms) - rows)
        shown = arms[: rows - 1] if left else arms
        wide = min(max((len(arm.name) for arm in shown), default=0), max(8, width // 3))
        for arm in shown:
            yield Text(f"{shorten(arm.name, wide):<{wide}}  {shorten(arm_text(arm), width - wide - 2)}")
        if left:
            yield Text(f"and {len(arms) - len(shown)} more configurations", style="dim")


def shown_events(events: Sequence[str]) -> list[str]:
    """Events that matter once the running trials are in sight: all but the starts of trials."""
    return [event for event in events if not is_start(event.partition("  ")[2] or event)]


def _apart(block: list[Text]) -> list[Text]:
    return [Text(), *block] if block else []
