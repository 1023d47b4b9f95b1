"""Answers of studies built by hand, and the boxes of what a chart shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
import pytest

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.charts.layout.boxes import Box, text_box
from results.charts.layout.place import Layout
from results.errors import NothingToSay
from results.sweep_result import SweepResult, read_study
from results.verdict.verdict import Verdict, verdict

Read = Callable[[optuna.Study], tuple[SweepResult, Answer]]


def read(study: optuna.Study) -> tuple[SweepResult, Answer]:
    """What charts are made of."""
    found: Verdict | None = None
    with suppress(NothingToSay):
        found = verdict(study)
    sweep = read_study(study)
    return sweep, read_answer(sweep, found, run_folder="runs/demo")


def text_boxes(layout: Layout) -> list[tuple[str, Box]]:
    """Every piece of text in the picture with its box."""
    found = [*layout.labels, *(tick.label for tick in (*layout.x_ticks, *layout.y_ticks) if tick.label)]
    if layout.strip is not None:
        found += [row.label for row in layout.strip.rows]
        found += [layout.strip.title] if layout.strip.title else []
    boxes = [(label.text, label.box) for label in found]
    return boxes + [
        (entry.text, text_box(entry.text, entry.text_x, entry.y + 4, entry.size)) for entry in layout.legend
    ]


def overlapping(boxes: list[tuple[str, Box]]) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other."""
    return [
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, other_box in boxes[index + 1 :]
        if box.overlaps(other_box)
    ]


@pytest.fixture
def answered(make_study: Any) -> Callable[..., tuple[SweepResult, Answer]]:
    """`answered(trial, trial, ..., name=...)`: the sweep and its answer."""
    return lambda *trials, **options: read(make_study(*trials, **options))
