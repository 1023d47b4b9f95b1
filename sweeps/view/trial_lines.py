"""The running trials as lines of a table: values, steps, losses, and who leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.text import Text

from results.text.gaps import short_loss
from sweeps.study.status import RunningTrial
from sweeps.view.phrases import short_values, step_text

GAP = 2
BAR_CELLS = 8
_ALWAYS, _IF_ROOM = ("trial", "step", "train", "eval"), ("done", "tokens/s")
LEADER, NOT_THERE = "*", "-"


@dataclass(frozen=True)
class Bars:
    """The characters of which bars are made."""

    full: str = "━"
    rest: str = "─"

    def bar(self, share: float, cells: int) -> Text:
        """A bar of `cells` cells, filled up to `share`."""
        full = round(cells * min(1.0, max(0.0, share)))
        return Text.assemble((self.full * full, "cyan"), (self.rest * (cells - full), "dim"))


ASCII_BARS = Bars("#", ".")
"""For terminals and files that cannot hold the usual characters."""


@dataclass
class TrialLines:
    """Draws the table; columns keep the widest content they had, so that nothing moves sideways."""

    bars: Bars = field(default_factory=Bars)
    _widths: dict[str, int] = field(default_factory=dict)

    def lines(
        self,
        trials: Sequence[RunningTrial],
        leader: int | None,
        *,
        width: int,
        rows: int,
        noun: str = "trial",
    ) -> list[Text]:
        """A heading and at most `rows` lines, the last of which may count the trials that found no room.

        `noun`: what the trials are called. Where all fit, a line belongs to a seat: the next trial of the
        seat takes it over. Otherwise the leader comes first, then who is furthest.
        """
        if not trials or rows < 2:
            return [_count_line(trials, "running")][: rows if trials else 0]
        shown = sorted(trials, key=lambda t: (t.worker is None, t.worker or 0, t.seat or 0, t.number))
        left = list[RunningTrial]()
        if len(shown) > rows:
            shown.sort(key=lambda t: (t.number != leader, -t.percent, t.number))
            shown, left = shown[: rows - 1], shown[rows - 1 :]
        cells = [self._cells(trial, leader) for trial in shown]
        columns = self._columns(cells, width)
        names = [(name, noun if name == "trial" else name) for name in columns]
        heading = Text(
            "  ".join(_aligned(name, shown, self._widths[name]) for name, shown in names), style="dim"
        )
        found = [heading]
        for trial, row in zip(shown, cells, strict=True):
            line = Text()
            for name in columns:
                line.append("  " if line else "")
                if name == "done":
                    line.append_text(self.bars.bar(trial.percent / 100, BAR_CELLS))
                else:
                    line.append(_aligned(name, row.get(name, NOT_THERE), self._widths[name]))
            if trial.number == leader:
                line.stylize("bold")
            if trial.state != "training":
                line.stylize("dim")
            found.append(line)
        if left:
            found.append(_count_line(left, "more"))
        return [_cropped(line, width) for line in found]

    def _cells(self, trial: RunningTrial, leader: int | None) -> dict[str, str]:
        mark = LEADER if trial.number == leader else " "
        return {
            "trial": f"{mark} {trial.number}",
            **short_values(trial.values),
            "step": step_text(trial.step, trial.max_steps, trial.percent),
            "done": " " * BAR_CELLS,
            "train": "" if trial.train_loss is None else short_loss(trial.train_loss),
            "eval": "" if trial.eval_loss is None else short_loss(trial.eval_loss),
            "tokens/s": "" if not trial.tokens_per_second else f"{trial.tokens_per_second:,.0f}",
        }

    def _columns(self, cells: Sequence[dict[str, str]], width: int) -> list[str]:
        """The columns that fit, in order; the first to go are the speed, the bar, and the last values."""
        for row in cells:
            for name, text in row.items():
                self._widths[name] = max(self._widths.get(name, 0), len(text), len(name))
        values = [name for name in self._widths if name not in (*_ALWAYS, *_IF_ROOM)]
        chosen = set[str]()
        room = width + GAP
        for name in (*_ALWAYS, *values, *_IF_ROOM):
            if self._widths[name] + GAP > room:
                break
            room -= self._widths[name] + GAP
            chosen.add(name)
        if not any(row["tokens/s"] for row in cells):
            chosen.discard("tokens/s")
        order = ["trial", *values, "step", "done", "train", "eval", "tokens/s"]
        return [name for name in order if name in chosen]


def _count_line(trials: Sequence[RunningTrial], word: str) -> Text:
    """`  and 20 more, 0 to 56% done`."""
    percents = sorted(trial.percent for trial in trials) or [0]
    span = f"{percents[0]}%" if percents[0] == percents[-1] else f"{percents[0]} to {percents[-1]}%"
    start = "and " if word == "more" else ""
    return Text(f"  {start}{len(trials)} {word}, {span} done", style="dim")


def _aligned(name: str, text: str, width: int) -> str:
    return f"{text:>{width}}" if name in ("step", "train", "eval", "tokens/s") else f"{text:<{width}}"


def _cropped(line: Text, width: int) -> Text:
    line.rstrip()
    line.truncate(width, overflow="crop")
    line.no_wrap, line.overflow = True, "crop"
    return line
