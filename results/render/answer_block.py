"""The answer at the end of a run and in a status, with its labels in bold."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from results.answer.answer import Answer
from results.text.answer import answer_lines

_LABEL_WIDTH = 6


def answer_block(
    answer: Answer,
    *,
    width: int = 80,
    done: Sequence[str] | None = None,
    report: str = "",
    with_next: bool = True,
) -> list[Text]:
    """The lines of `answer_lines`."""
    lines = []
    for line in answer_lines(answer, width=width, done=done, report=report, with_next=with_next):
        text = Text(line)
        text.stylize("bold", 0, _LABEL_WIDTH)
        lines.append(text)
    return lines


def print_answer(
    console: Console,
    answer: Answer,
    *,
    done: Sequence[str] | None = None,
    report: str = "",
    with_next: bool = True,
) -> None:
    """Print the block; commands and paths are not broken, so that they can be copied."""
    for line in answer_block(answer, width=console.width, done=done, report=report, with_next=with_next):
        console.print(line, soft_wrap=True, highlight=False)
