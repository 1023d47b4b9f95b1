"""Counts of how the records of a set were rendered, and of their stop tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_runner.data.tokens.build_sequences import TokenSequence

_WAYS = {
    "marked": "{records} conversation{s}, one sequence each, with loss on what the chat template marks with"
    " {{% generation %}}",
    "whole": "{records} conversation{s}, one sequence each, with loss on the assistant's turns",
    "per turn": "{records} conversation{s} as {sequences} sequences, one for each assistant turn with what"
    " a server would send before it: as one text they would teach other prompts or no stop token",
    "all": "{records} conversation{s}, one sequence each, with loss on every token",
    "completion": "{records} prompt{s} with loss on the completion",
    "text": "{records} text{s}",
}
"""Sentence for each way."""


@dataclass(frozen=True, kw_only=True)
class StopToken:
    """A token that ends completions."""

    id: int
    text: str
    num_turns: int
    """Completions that end with it."""


@dataclass(frozen=True, kw_only=True)
class RenderingCounts:
    """How a set was rendered; examples without a token with loss do not count."""

    num_records: int = 0
    ways: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(records, sequences) by way; `TokenSequence.way` names them."""
    stop_tokens: tuple[StopToken, ...] = ()
    """Most common first; they end generation."""
    num_without_stop: int = 0
    """Records with no stop token with loss in any sequence."""
    num_cut_before_stop: int = 0
    """Those of them whose stop token is beyond max_length."""
    notes: tuple[str, ...] = ()
    """Remarks, each with the number of records that it applies to."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a generation of the trained model."""
        return tuple(token.id for token in self.stop_tokens)

    def sentences(self) -> Iterator[str]:
        """Yield how the records were rendered, and which tokens end their answers."""
        for way, (records, sequences) in self.ways.items():
            yield _WAYS[way].format(
                records=f"{records:,}", sequences=f"{sequences:,}", s="" if records == 1 else "s"
            )
        if self.stop_tokens:
            named = [f"{token.text} (id {token.id}, {token.num_turns:,} times)" for token in self.stop_tokens]
            yield f"stop token{'s' if len(named) > 1 else ''}: {', '.join(named)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ways": {way: {"records": r, "sequences": s} for way, (r, s) in self.ways.items()},
            "stop_tokens": [vars(token) for token in self.stop_tokens],
            "records_without_stop_token": self.num_without_stop,
            "notes": list(self.notes),
        }


class RenderingCounter:
    """Builds RenderingCounts sequence by sequence."""

    def __init__(self) -> None:
        self._records: dict[str, set[int]] = {}
        self._sequences = Counter[str]()
        self._stops = Counter[tuple[int, str]]()
        self._stopping, self._cut = set[int](), set[int]()
        self._notes: dict[str, set[int]] = {}

    def add(self, sequence: TokenSequence, length: int) -> None:
        """Add a sequence of which the first `length` tokens are kept."""
        self._records.setdefault(sequence.way, set()).add(sequence.example)
        self._sequences[sequence.way] += 1
        taught = [token for position, token in sequence.stops.items() if position < length]
        self._stops.update(taught)
        if taught:
            self._stopping.add(sequence.example)
        elif sequence.stops:
            self._cut.add(sequence.example)
        for note in sequence.notes:
            self._notes.setdefault(note, set()).add(sequence.example)

    def result(self) -> RenderingCounts:
        """Return what was counted."""
        records = set().union(*self._records.values())
        return RenderingCounts(
            num_records=len(records),
            ways={way: (len(found), self._sequences[way]) for way, found in self._records.items()},
            stop_tokens=tuple(
                StopToken(id=token, text=text, num_turns=count)
                for (token, text), count in self._stops.most_common()
            ),
            num_without_stop=len(records - self._stopping),
            num_cut_before_stop=len(self._cut - self._stopping),
            notes=tuple(
                f"{note} ({len(found):,} of {len(records):,} records)" for note, found in self._notes.items()
            ),
        )
