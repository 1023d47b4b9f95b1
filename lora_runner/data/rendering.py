"""How the records of a set became sequences, in numbers and sentences for `plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_runner.data.sequences import TrainedSequence


@dataclass(frozen=True, kw_only=True)
class StopToken:
    """A token by which completions end."""

    id: int
    text: str
    num_turns: int
    """Completions that teach it."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How a set was made; what was dropped for want of a token with loss does not count."""

    num_records: int = 0
    ways: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(records, sequences) by way: `marked`, `whole`, `per turn` for conversations, `completion`, `text`."""
    stop_tokens: tuple[StopToken, ...] = ()
    """Commonest first; what a generation ends with."""
    num_without_stop: int = 0
    """Records of which no sequence has a stop token with loss."""
    notes: tuple[str, ...] = ()
    """What else to know, each with the number of records that it holds for."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ways": {way: {"records": r, "sequences": s} for way, (r, s) in self.ways.items()},
            "stop_tokens": [vars(token) for token in self.stop_tokens],
            "records_without_stop_token": self.num_without_stop,
            "notes": list(self.notes),
        }


class RenderingCount:
    """Counts a Rendering together, sequence by sequence."""

    def __init__(self) -> None:
        self._records: dict[str, set[int]] = {}
        self._sequences = Counter[str]()
        self._stops = Counter[tuple[int, str]]()
        self._stopping = set[int]()
        self._notes: dict[str, set[int]] = {}

    def add(self, sequence: TrainedSequence, length: int) -> None:
        """Add a sequence of which the first `length` tokens are kept."""
        self._records.setdefault(sequence.way, set()).add(sequence.example)
        self._sequences[sequence.way] += 1
        taught = [token for position, token in sequence.stops.items() if position < length]
        self._stops.update(taught)
        if taught:
            self._stopping.add(sequence.example)
        for note in sequence.notes:
            self._notes.setdefault(note, set()).add(sequence.example)

    def result(self) -> Rendering:
        """Return what was counted."""
        records = set().union(*self._records.values())
        return Rendering(
            num_records=len(records),
            ways={way: (len(found), self._sequences[way]) for way, found in self._records.items()},
            stop_tokens=tuple(
                StopToken(id=token, text=text, num_turns=count)
                for (token, text), count in self._stops.most_common()
            ),
            num_without_stop=len(records - self._stopping),
            notes=tuple(
                f"{note} ({len(found):,} of {len(records):,} records)" for note, found in self._notes.items()
            ),
        )
