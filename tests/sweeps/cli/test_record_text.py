"""A training record as a terminal shows it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from lora_runner.data import RecordView, SequenceView, TokenRun
from sweeps.cli.record_text import print_record


def piece(text: str, trained: bool = False, cut: bool = False) -> TokenRun:
    return TokenRun(text=text, is_trained=trained, is_cut=cut)


def sequence(
    *pieces: TokenRun, stops: Sequence[str] = ("<eos>",), targets: int = 12, lost: int = 0
) -> SequenceView:
    return SequenceView(
        pieces=pieces,
        num_tokens=60 + lost,
        num_target_tokens=targets,
        num_lost_target_tokens=lost,
        stops=tuple(stops),
        way="per turn",
        notes=("the template is odd",) if lost else (),
    )


def shown(*sequences: SequenceView, colors: bool = False) -> str:
    record = RecordView(
        number=3, num_records=2000, place="d.jsonl:7", said="trained", max_length=60, sequences=sequences
    )
    system = "standard" if colors else None
    console = Console(file=io.StringIO(), width=80, force_terminal=colors, color_system=system)
    with console.capture() as capture:
        print_record(record, console)
    return capture.get()


def test_marks_counts_and_every_sequence_of_a_record() -> None:
    first = sequence(piece("<|user|>hi [bold]\n<|assistant|>"), piece("hello<eos>", True))
    second = sequence(piece("<|user|>more"), piece("a", True), piece("b<eos>", True, True), stops=(), lost=4)
    assert shown(first, second).splitlines() == [
        "record 3 of 2,000, d.jsonl:7: trained",
        "",
        "sequence 1 of 2: 60 tokens, 12 with loss; stops with <eos> (per turn)",
        "<|user|>hi [bold]",
        "<|assistant|>⟦hello<eos>⟧",
        "",
        "sequence 2 of 2: 64 tokens, 12 with loss; cut at max_length 60, which loses 4 more tokens with "
        "loss; no stop token is trained (per turn)",
        "note: the template is odd",
        "<|user|>more⟦a⟧✂⟦b<eos>⟧",
        "",
        "Tokens with loss are between ⟦ and ⟧; what follows ✂ is beyond max_length and is never seen.",
    ]


def test_a_sequence_without_a_token_to_learn_is_said_to_be_left_out() -> None:
    beyond = sequence(piece("<|user|>long"), piece("a<eos>", True, True), stops=(), targets=0, lost=2)
    assert shown(sequence(piece("a")), beyond).splitlines()[5] == (
        "sequence 2 of 2: 62 tokens, 0 with loss; cut at max_length 60, which loses 2 more tokens with loss; "
        "left out: it has no token with loss (per turn)"
    )


def test_a_terminal_with_colors_needs_no_brackets() -> None:
    text = shown(sequence(piece("hi"), piece("hello", True)), colors=True)
    assert "\x1b[1;32mhello\x1b[0m" in text
    assert "⟦" not in text
    assert "Tokens with loss are bold and green" in text


@pytest.mark.parametrize(("code", "picture"), [("\x1b[2J", "␛[2J"), ("\r", "␍"), ("\x7f", "␡"), ("\t", "\t")])
def test_a_record_gives_the_terminal_no_orders(code: str, picture: str) -> None:
    assert f"a{picture}b" in shown(sequence(piece(f"a{code}b"))).expandtabs(1) or picture == "\t"
    assert "\x1b" not in shown(sequence(piece(f"a{code}b")))
