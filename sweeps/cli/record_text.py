"""`sweeps plan --show-record N`: a training record in the terminal, with its trained tokens marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from lora_runner.data import RecordView, SequenceView, TokenRun

OPEN, CLOSE = "⟦", "⟧"
"""Around trained tokens when the terminal has no colors."""
CUT = "✂"
TRAINED, BEYOND = "bold green", "dim strike"

_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
"""Control characters and the symbols that stand for them: the terminal would act on escape codes."""


def print_record(record: RecordView, console: Console) -> None:
    """Print what happens to the record, and every sequence made from it as the model sees it."""
    colors = console.color_system is not None
    lines = [Text(f"record {record.number:,} of {record.num_records:,}, {record.place}: {record.said}")]
    for number, sequence in enumerate(record.sequences, start=1):
        head = f"sequence {number} of {len(record.sequences)}: " if len(record.sequences) > 1 else ""
        lines += [Text(), Text(head + _counts(sequence, record.max_length), style="italic")]
        lines += [Text(f"note: {note}", style="dim") for note in sequence.notes]
        lines.append(Text.assemble(*_marked(sequence.pieces, colors)))
    lines += [Text(), Text(_legend(colors), style="dim")]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _counts(sequence: SequenceView, max_length: int) -> str:
    parts = [f"{sequence.num_tokens:,} tokens, {sequence.num_target_tokens:,} with loss"]
    if sequence.num_tokens > max_length:
        lost = sequence.num_lost_target_tokens
        parts.append(f"cut at max_length {max_length:,}, which loses {lost:,} more tokens with loss")
    if not sequence.num_target_tokens:
        return f"{'; '.join(parts)}; left out: it has no token with loss ({sequence.way})"
    stops = ", ".join(dict.fromkeys(sequence.stops))
    parts.append(f"stops with {stops}" if stops else "no stop token is trained")
    return f"{'; '.join(parts)} ({sequence.way})"


def _marked(pieces: tuple[TokenRun, ...], colors: bool) -> Iterator[tuple[str, str]]:
    is_cut = False
    for piece in pieces:
        if piece.is_cut and not is_cut:
            yield CUT, "bold red"
        is_cut = piece.is_cut
        text = piece.text.translate(_VISIBLE)
        if piece.is_trained and not colors:
            text = f"{OPEN}{text}{CLOSE}"
        yield text, BEYOND if piece.is_cut else TRAINED if piece.is_trained else ""


def _legend(colors: bool) -> str:
    marks = "bold and green" if colors else f"between {OPEN} and {CLOSE}"
    return f"Tokens with loss are {marks}; what follows {CUT} is beyond max_length and is never seen."
