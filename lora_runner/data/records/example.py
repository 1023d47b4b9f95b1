"""Message and Example: a record in the one form that can be tokenized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lora_runner.data.records.record import Origin


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    train: bool = True
    """False (`"weight": 0` in the data): an assistant turn that is context only."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other fields for the chat template: tool_calls, name, tool_call_id, reasoning_content."""

    def as_dict(self) -> dict[str, Any]:
        """Return the dict that chat templates read."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record: a conversation, a prompt with its completion, or a text.

    Alpaca records have both a conversation (for tokenizers with a chat template) and a prompt with its
    completion.
    """

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    """JSON schemas of the tools, for the chat template."""
    num_context_messages: int = 0
    """Leading messages that never carry loss: the prompt of prompt/completion and alpaca records."""
    origin: Origin = field(compare=False, default=Origin("", 0))
    fields: Mapping[str, Any] = field(compare=False, repr=False, default_factory=dict)
    """The record as it is in the file."""

    @cached_property
    def content_key(self) -> str:
        """SHA-256 of the content alone, independent of machine, file and order."""
        messages = None if self.messages is None else [[m.as_dict(), m.train] for m in self.messages]
        content = [messages, self.prompt, self.completion, self.text, self.tools, self.num_context_messages]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()
