"""One chat template: where its text comes from, and conversations -> what it prints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from lora_runner.data.records.example import Message
from lora_runner.data.records.record import BadRecord
from lora_runner.data.records.tool_calls import encode_arguments
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tools = Sequence[Mapping[str, Any]] | None
Span = tuple[int, int]
"""(start, end) of a range of characters."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The built-in template, used when it is asked for by name ("chatml")."""

PROBE = "\ue0f8\ue0f3\ue0f8"
"""Stands for an answer where what the template prints around it is looked for."""
# Private-use characters that no text carries; they live only between rendering and `_cut_marks`.
_OPEN, _CLOSE = "\ue0f8\ue0f1\ue0f8", "\ue0f8\ue0f2\ue0f8"
_MARK = re.compile(f"({_OPEN}|{_CLOSE})")
_GENERATION = re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}")
_END_GENERATION = re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}")
# {% call %} trims and scopes like transformers' own {% generation %}; its macro prints where a turn begins.
_MARK_MACRO = "{% macro marked_turn_() %}" + _OPEN + "{{ caller() }}" + _CLOSE + "{% endmacro %}"
# Templates that print today's date would give another evaluation set tomorrow. The date that Llama's
# templates fall back on stands in for it.
_DATE_MACRO = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%d', '26') | replace('%e', '26') | replace('%m', '07') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%Y', '2024') | replace('%y', '24') | replace('%A', 'Friday')"
    " | replace('%a', 'Fri') | replace('%H', '12') | replace('%I', '12') | replace('%M', '00')"
    " | replace('%S', '00') | replace('%p', 'PM') }}{% endmacro %}"
)


def resolve_chat_template(asked: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the text of the template asked for (jinja text, a file, "chatml"), else the tokenizer's own.

    Raises DataError when a file does not exist or cannot be read.
    """
    if asked is None:
        own = tokenizer.chat_template
        if isinstance(own, dict):  # several, by name
            own = own.get("default")
        return None if own is None else str(own)
    if asked == "chatml":
        # As with every other text: a tokenizer that starts texts with BOS gets one here too.
        starts = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        return ("{{ bos_token }}" if starts else "") + CHATML
    if "{{" in asked or "{%" in asked:
        return asked
    path = Path(asked).expanduser()
    if not path.is_file():
        raise DataError(
            f"chat_template must be jinja text, the path of a file, or 'chatml'; there is no file {asked!r}",
            path=asked,
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the chat template cannot be read: {error}", path=path) from error


class ChatTemplate:
    """Renders conversations with one template, as transformers does, but for today's date."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self.text = text
        self.is_marked = _GENERATION.search(text) is not None
        """Whether it marks the assistant's words with {% generation %}."""
        self._tokenizer = tokenizer
        source = _GENERATION.sub(r"{%\1 call marked_turn_() \2%}", text)
        source = _END_GENERATION.sub(r"{%\1 endcall \2%}", source)
        head = (_MARK_MACRO if self.is_marked else "") + (_DATE_MACRO if "strftime_now" in text else "")
        # The empty output keeps the block before it from swallowing a newline at the template's start.
        self._source = head + "{{ '' }}" + source if head else source

    def render(
        self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> str:
        """Return what is printed; nothing for no messages.

        Raises BadRecord when the template refuses the conversation, DataError when it is broken itself.
        """
        return self.render_marked(messages, tools, add_generation_prompt=add_generation_prompt)[0]

    def render_marked(
        self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """`render`, with the ranges that stand between {% generation %} marks."""
        if not messages:
            return "", []
        try:
            return _cut_marks(self._apply(messages, tools, add_generation_prompt))
        except BadRecord:
            if not any("tool_calls" in message.extra for message in messages):
                raise
            # DeepSeek-V3's template joins `arguments` to texts, which a dict is not.
            as_text = [replace(message, extra=encode_arguments(message.extra)) for message in messages]
            return _cut_marks(self._apply(as_text, tools, add_generation_prompt))

    @cached_property
    def has_generation_prompt(self) -> bool:
        """Whether it can print the beginning of the assistant's next turn."""
        return self.generation_prompt != ""

    @cached_property
    def generation_prompt(self) -> str | None:
        """What it prints after a user's turn to begin the assistant's; None where that cannot be told."""
        question = [Message(role="user", content=PROBE)]
        try:
            without, found = self.render(question), self.render(question, add_generation_prompt=True)
        except BadRecord:
            return None
        return found.removeprefix(without) if found.startswith(without) else None

    @cached_property
    def wants_parts(self) -> bool:
        """Whether it prints lists of parts alone, no texts: templates of models that see images do."""
        probe = [Message(role="user", content=PROBE), Message(role="assistant", content=PROBE)]

        def prints(as_parts: bool) -> bool:
            try:
                return self._print(probe, None, False, as_parts=as_parts).count(PROBE) == len(probe)
            except BadRecord:
                return False

        return not prints(False) and prints(True)

    def _apply(self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool) -> str:
        return self._print(messages, tools, add_generation_prompt, as_parts=self.wants_parts)

    def _print(
        self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool, *, as_parts: bool
    ) -> str:
        turns = [message.as_dict() for message in messages]
        if as_parts:
            for turn in turns:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns,
                tools=[dict(tool) for tool in tools] if tools else None,
                chat_template=self._source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"the chat template is broken at its line {error.lineno}: {error.message}"
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadRecord(f"the chat template refuses the conversation: {error}") from error
        return str(rendered)


def _cut_marks(rendered: str) -> tuple[str, list[Span]]:
    """Take the marks out of a rendered text; return it with the ranges that stood between them."""
    text, spans, start = "", [], 0
    for piece in _MARK.split(rendered):
        if piece == _OPEN:
            start = len(text)
        elif piece == _CLOSE:
            spans.append((start, len(text)))
        else:
            text += piece
    return text, spans
