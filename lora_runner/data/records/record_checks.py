"""Records unsuitable for training: refused where that is certain, otherwise counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lora_runner.data.records.example import Example, Message
from lora_runner.data.records.formats import TURN_KEYS
from lora_runner.data.records.record import Problem, Record, problems_error
from lora_runner.errors import DataError

COLUMNS_READ = {
    "messages": (*TURN_KEYS, "tools"),
    "sharegpt": (*TURN_KEYS, "tools", "system"),
    "prompt_completion": ("prompt", "completion", "tools"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "text": ("text",),
}
"""Columns that `convert.py` reads of each format; of several lists of turns, the first."""

MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
_PLACEHOLDER = re.compile(
    r"<(?:image|video|audio|image_soft_token|audio_soft_token|start_of_image)>"
    r"|<\|(?:image|video|audio|image_pad|video_pad|vision_start|image_1)\|>|\[IMG\]"
)
MISSING = frozenset({"nan", "NaN", "<NA>", "None", "null", "NULL"})
"""How pandas, Python, JSON and SQL write a missing value."""


def columns_not_used(records: Sequence[Record], format: str) -> tuple[str, ...]:
    """Return the names of non-empty columns that are not read, in order."""
    found = dict.fromkeys(
        str(name)
        for record in records
        for name, value in record.fields.items()
        if value not in (None, "", [])
    )
    _, *others = [name for name in TURN_KEYS if name in found] or [""]
    return tuple(name for name in found if name not in COLUMNS_READ[format] or name in others)


def refuse_unwanted_answers(records: Sequence[Record], format: str, source: str) -> None:
    """Raise DataError for answers marked as bad: KTO's unpaired preferences, `label: false`.

    Only beside prompt and completion, and only for booleans: other `label` columns may be classes.
    """
    if format != "prompt_completion":
        return
    unwanted = [record for record in records if _is_false(record.fields.get("label"))]
    if unwanted:
        raise DataError(
            f"the column 'label' is false for {len(unwanted):,} of {len(records):,} records, the first"
            f" at {unwanted[0].origin}: their completions are examples of what not to say (unpaired"
            " preferences, as KTO takes them), which a sweep would train the model to say. Keep the records"
            " with label true, or remove the column if it means something else",
            path=source,
        )


def _is_false(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")


def refuse_media(records: Sequence[Record], examples: Sequence[Example]) -> None:
    """Raise DataError for texts with placeholders for the images, audio or video of another column."""
    problems: list[Problem] = []
    for record, example in zip(records, examples, strict=True):
        column = next((name for name in MEDIA_COLUMNS if record.fields.get(name)), None)
        if column is not None and (found := placeholder_in(example)) is not None:
            problems.append(
                (
                    record.origin,
                    f"the text contains {found}, a placeholder for the column {column!r}, which a sweep does"
                    " not read: it trains on text only. Remove these records or their placeholders",
                )
            )
    if problems:
        raise problems_error(problems)


def placeholder_in(example: Example) -> str | None:
    """Return the first placeholder of an image, audio or video in an example's texts, or None."""
    for text in _texts(example):
        if found := _PLACEHOLDER.search(text):
            return found.group()
    return None


def is_empty(example: Example, *, completion_only: bool = True) -> bool:
    """Return whether there is nothing to learn: the answer (or everything) is blank or missing."""
    if not completion_only:
        return not any(text.strip() for text in _texts(example))
    if example.messages is not None:
        return all(_is_blank(message) for message in _answers(example))
    return not ((example.completion if example.prompt is not None else example.text) or "").strip()


def count_suspicious(examples: Sequence[Example]) -> Counter[str]:
    """Count suspicious examples, under the names of the fields of SetCounts."""
    found = Counter[str]()
    for example in examples:
        answers = list(_answers(example)) if example.messages is not None else []
        texts = [answer.content for answer in answers] or [example.completion or ""]
        found["num_placeholders"] += placeholder_in(example) is not None
        found["num_missing_texts"] += any(text.strip() in MISSING for text in texts)
        found["num_blank_turns"] += any(map(_is_blank, answers)) and not all(map(_is_blank, answers))
    return found


def _answers(example: Example) -> Iterator[Message]:
    for number, message in enumerate(example.messages or ()):
        if message.role == "assistant" and message.train and number >= example.num_context_messages:
            yield message


def _is_blank(message: Message) -> bool:
    return not message.content.strip() and not message.extra


def _texts(example: Example) -> Iterator[str]:
    if example.messages is not None:
        yield from (message.content for message in example.messages)
    else:
        yield from (text for text in (example.prompt, example.completion, example.text) if text is not None)
