"""Finds the text of a chat template, and renders conversations with it."""

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
"""The built-in template, chosen by the name "chatml"."""

PROBE = "\ue0f8\ue0f3\ue0f8"
"""Stands in for an answer, to find what the template prints around it."""
# Private-use characters that do not occur in texts; `_cut_marks` removes them after rendering.
_OPEN, _CLOSE = "\ue0f8\ue0f1\ue0f8", "\ue0f8\ue0f2\ue0f8"
_MARK = re.compile(f"({_OPEN}|{_CLOSE})")
_GENERATION = re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}")
_END_GENERATION = re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}")
# {% call %} trims and scopes like transformers' {% generation %}; the macro prints marks around the turn.
_MARK_MACRO = "{% macro marked_turn_() %}" + _OPEN + "{{ caller() }}" + _CLOSE + "{% endmacro %}"
# A template that prints today's date would give another evaluation set tomorrow, so the date is fixed,
# to the one that Llama's templates fall back on.
_DATE_MACRO = (
    "{% macro strftime_now(format) %}{{ format"
    " | replace('%d', '26') | replace('%e', '26') | replace('%m', '07') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%Y', '2024') | replace('%y', '24') | replace('%A', 'Friday')"
    " | replace('%a', 'Fri') | replace('%H', '12') | replace('%I', '12') | replace('%M', '00')"
    " | replace('%S', '00') | replace('%p', 'PM') }}{% endmacro %}"
)


def resolve_chat_template(asked: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the text of the requested template (jinja text, a file, "chatml"), else the tokenizer's own.

    Raises DataError when the file does not exist or cannot be read.
    """
    if asked is None:
        own = tokenizer.chat_template
        if isinstance(own, dict):  # several, by name
            own = own.get("default")
        return None if own is None else str(own)
    if asked == "chatml":
        # If the tokenizer starts other texts with BOS, it does so here too.
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
    """Renders conversations with one template as transformers does, except that the date is fixed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self.text = text
        self.is_marked = _GENERATION.search(text) is not None
        """Whether it marks the assistant's turns with {% generation %}."""
        self._tokenizer = tokenizer
        source = _GENERATION.sub(r"{%\1 call marked_turn_() \2%}", text)
        source = _END_GENERATION.sub(r"{%\1 endcall \2%}", source)
        head = (_MARK_MACRO if self.is_marked else "") + (_DATE_MACRO if "strftime_now" in text else "")
        # Without the empty output, the macros would trim a newline at the start of the template.
        self._source = head + "{{ '' }}" + source if head else source

    def render(
        self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> str:
        """Return the rendered text; empty for no messages.

        Raises BadRecord when the template rejects the conversation, DataError when the template is broken.
        """
        return self.render_marked(messages, tools, add_generation_prompt=add_generation_prompt)[0]

    def render_marked(
        self, messages: Sequence[Message], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """`render`, with the ranges between {% generation %} marks."""
        if not messages:
            return "", []
        try:
            return _cut_marks(self._apply(messages, tools, add_generation_prompt))
        except BadRecord:
            if not any("tool_calls" in message.extra for message in messages):
                raise
            # DeepSeek-V3's template concatenates `arguments`, which must be text for that.
            with_text = [replace(message, extra=encode_arguments(message.extra)) for message in messages]
            return _cut_marks(self._apply(with_text, tools, add_generation_prompt))

    @cached_property
    def generation_prompt(self) -> str | None:
        """What it prints after a user turn to begin the assistant's; None if it rejects the probe."""
        question = [Message(role="user", content=PROBE)]
        try:
            without, found = self.render(question), self.render(question, add_generation_prompt=True)
        except BadRecord:
            return None
        return found.removeprefix(without) if found.startswith(without) else None

    @cached_property
    def wants_parts(self) -> bool:
        """Whether it reads contents only as lists of parts, as templates of vision models do."""
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
    """Remove the marks from a rendered text; return it with the ranges between them."""
    text, spans, start = "", [], 0
    for piece in _MARK.split(rendered):
        if piece == _OPEN:
            start = len(text)
        elif piece == _CLOSE:
            spans.append((start, len(text)))
        else:
            text += piece
    return text, spans
