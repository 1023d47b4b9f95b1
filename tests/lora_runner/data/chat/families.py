"""The chat templates that TRL ships, conversations to try them with, and the page of how they are rendered.

python -m tests.lora_runner.data.chat.families > docs/templates.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lora_runner.data import Example, convert
from lora_runner.data.records.record import Origin, Record
from lora_runner.data.tokens.tokenize import TokenizedSet, tokenize
from lora_runner.errors import DataError

_SPECIAL = re.compile(
    r"<[|｜][^<>\s|｜'\"]+[|｜]?>|<[a-z_]+\|>|</?s>|<(?:start|end)_of_\w+>|\[/?[A-Z_]+\]|\[gMASK\]|<sop>"
)
_ADDED = re.compile(r"</?(?:think|tool_call|arg_key|arg_value|tool_response)>")

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "description": "Its name"}},
            "required": ["town"],
        },
    },
}
_CALL = {
    "type": "function",
    "id": "call00001",
    "function": {"name": "weather", "arguments": {"town": "Ulm"}},
}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


RECORDS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [_user("Is it dry?"), _assistant("Yes it is.")]},
    "system, two turns": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            _user("Is it dry?"),
            _assistant("Yes it is."),
            _user("And warm?"),
            _assistant("Not very."),
        ]
    },
    "tools": {
        "messages": [
            _user("Is it dry in Ulm?"),
            _assistant("", tool_calls=[_CALL]),
            {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "rain"},
            _assistant("No, wet."),
        ],
        "tools": [TOOL],
    },
    "reasoning": {
        "messages": [_user("Is it dry?"), _assistant("<think>\nI look out.\n</think>\n\nYes it is.")]
    },
    "reasoning in history": {
        "messages": [
            _user("Is it dry?"),
            _assistant("<think>\nI look out.\n</think>\n\nYes it is."),
            _user("And warm?"),
            _assistant("<think>\nI step out.\n</think>\n\nNot very."),
        ]
    },
}
"""Five conversations by name."""


def template_folder() -> Path:
    """Where TRL keeps its templates, found without importing it."""
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "chat_templates"


@cache
def templates() -> dict[str, str]:
    """Text by name: a family's own, and beside many of them `_training` with {% generation %} marks."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(template_folder().glob("*.jinja"))}


@cache
def family_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and one token for each special token of any template."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    found = sorted({token for text in templates().values() for token in _SPECIAL.findall(text)})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=found,
    )
    tokenizer.add_tokens(sorted({token for text in templates().values() for token in _ADDED.findall(text)}))
    return tokenizer


def example(record: dict[str, Any]) -> Example:
    """One record as the program reads it from a file."""
    return convert([Record(record, Origin("chat.jsonl", 1))])[1][0]


def tokenized_record(record: dict[str, Any], template: str) -> TokenizedSet:
    """One record with one template; raises DataError where it is refused."""
    return tokenize(
        [example(record)], family_tokenizer(), source="chat.jsonl", max_length=10**6, chat_template=template
    )


def outcome(record: dict[str, Any], template: str) -> str:
    """Way, sequences and stop tokens, or why the record is refused, in a cell of a table."""
    try:
        found = tokenized_record(record, template).rendering
    except DataError as error:
        return f"refused: {_short(error.message)}"
    ((way, (_, sequences)),) = found.ways.items()
    stops = " ".join(f"`{token.text}`" for token in found.stop_tokens) or "**none**"
    parted = "¹" if any("server's prompt continues with" in note for note in found.notes) else ""
    lost = "²" if any("an earlier turn otherwise" in note for note in found.notes) else ""
    many = f" x {sequences}" if sequences > 1 else ""
    return f"{way}{many}{parted}{lost}, {stops}".replace("|", "\\|")


def _short(message: str) -> str:
    if "has tools, which" in message:
        return "prints no tools"
    if found := re.search(r"does not print (?:its )?(.*?), so that", message):
        return f"does not print {found[1]}"
    return message.removeprefix("the chat template refuses the conversation: ")


def page() -> Iterator[str]:
    """Lines of docs/templates.md."""
    families = {name: text for name, text in templates().items() if not name.endswith("_training")}
    yield from (
        "# Chat templates of model families",
        "",
        f"How five conversations are rendered with the {len(families)} stock templates that TRL 1.16 ships.",
        "Generated by `python -m tests.lora_runner.data.chat.families > docs/templates.md`.",
        "Each cell: the way ([data.md](data.md#how-a-conversation-becomes-tokens)), the number of sequences",
        "if there are several, and the stop tokens of the trained turns.",
        "",
        "¹ A server's prompt continues with text that the template does not print before such an answer",
        "(such as an open `<think>`): the loss begins where the two differ, and `plan` says so.  ",
        "² The template drops the reasoning of earlier turns; its marks are followed, and `plan` says so.",
        "",
        "| template | " + " | ".join(RECORDS) + " |",
        "|---" * (len(RECORDS) + 1) + "|",
    )
    for name, text in families.items():
        cells = [outcome(record, text) for record in RECORDS.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print("\n".join(page()))
