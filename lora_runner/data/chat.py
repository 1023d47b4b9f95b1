"""Conversations -> text, with the character spans that carry loss.

A template may mark the assistant's turns itself with {% generation %}. For others the spans are found by
rendering growing prefixes of the conversation, which must render to how the whole begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from lora_runner.data.formats import Example, Message
from lora_runner.data.records import BadRecord
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

# Private-use characters that no text carries; they live only between rendering and `_cut_marks`.
_OPEN, _CLOSE = "\ue0f8\ue0f1\ue0f8", "\ue0f8\ue0f2\ue0f8"
_PROBE = "\ue0f8\ue0f3\ue0f8"
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


@dataclass(frozen=True, kw_only=True)
class RenderedChat:
    """A conversation as text, and the (start, end) character ranges that carry loss."""

    text: str
    spans: tuple[tuple[int, int], ...]


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


class ChatRenderer:
    """Renders conversations with one template, and finds the assistant's turns in the result."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer = tokenizer
        self._marked = _GENERATION.search(template) is not None
        self._has_generation_prompt: bool | None = None  # known once a conversation has shown it
        self._reads_tools = "tools" in template
        source = _GENERATION.sub(r"{%\1 call marked_turn_() \2%}", template)
        source = _END_GENERATION.sub(r"{%\1 endcall \2%}", source)
        head = (_MARK_MACRO if self._marked else "") + (_DATE_MACRO if "strftime_now" in template else "")
        # The empty output keeps the block before it from swallowing a newline at the template's start.
        self._template = head + "{{ '' }}" + source if head else source
        self._special = [
            str(token) for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        ]

    def render(self, example: Example) -> RenderedChat:
        """Render one conversation.

        Raises BadRecord when the template refuses it, or when the turns cannot be located; DataError when the
        template itself is broken.
        """
        messages = example.messages or ()
        if example.tools and not self._reads_tools:
            raise BadRecord(
                "the record has tools, which the chat template does not print; set another chat_template"
            )
        if self._marked:
            return self._render_marked(messages, example)
        return self._render_growing(messages, example)

    def _render_marked(self, messages: Sequence[Message], example: Example) -> RenderedChat:
        text, spans = _cut_marks(self._apply(messages, example))
        # A mark that stops short of the end-of-turn token would train a model that never stops.
        eos = str(self._tokenizer.eos_token) if self._tokenizer.eos_token else ""
        spans = [(start, end + len(eos) if text.startswith(eos, end) else end) for start, end in spans]
        turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
        wanted = [_trains(messages, number, example) for number in turns]
        if len(spans) == len(turns):
            spans = [span for span, keep in zip(spans, wanted, strict=True) if keep]
        elif not all(wanted):
            raise BadRecord(
                f"the chat template marks {len(spans)} turns with {{% generation %}} where the record has"
                f" {len(turns)} assistant turns, so those without loss cannot be told apart"
            )
        return RenderedChat(text=text, spans=tuple(spans))

    def _render_growing(self, messages: Sequence[Message], example: Example) -> RenderedChat:
        full = self._apply(messages, example)
        spans = [
            self._locate(messages, number, full, example)
            for number, message in enumerate(messages)
            if message.role == "assistant" and _trains(messages, number, example)
        ]
        return RenderedChat(text=full, spans=tuple(spans))

    def _locate(
        self, messages: Sequence[Message], number: int, full: str, example: Example
    ) -> tuple[int, int]:
        """Return the span of one assistant turn, after its header up to and with its end-of-turn token."""
        content = messages[number].content.strip()
        before = self._apply(messages[:number], example, add_generation_prompt=True) if number else ""
        if number and self._has_generation_prompt is None:
            self._has_generation_prompt = before != self._apply(messages[:number], example)
        upto = full if number == len(messages) - 1 else self._apply(messages[: number + 1], example)
        if not upto.startswith(before):
            raise BadRecord(_inconsistent(number, len(messages)))
        start = len(before)
        if not number or not self._has_generation_prompt:
            start += self._header_length(messages[: number + 1], upto[start:], start, example)
        end = len(upto)
        if not full.startswith(upto):
            # Some templates print the last turn differently (an empty <think> block, say). Where only that
            # differs, the turn is in the whole as content plus the end that it has when it is last.
            ends = [found.end() for found in re.finditer(re.escape(content), upto) if found.start() >= start]
            turns = [upto[:start] + content + upto[place:] for place in ends if content]
            turn = next((turn for turn in turns if full.startswith(turn)), None)
            if turn is None:
                raise BadRecord(_inconsistent(number, len(messages)))
            end = len(turn)
        kept = full[start:end].rstrip()
        if any(kept.endswith(token) for token in self._special):
            end = start + len(kept)  # the line break after an end-of-turn token is never generated
        return start, end

    def _header_length(self, messages: Sequence[Message], turn: str, start: int, example: Example) -> int:
        """Return how many characters stand before the content, where no generation prompt tells."""
        *others, last = messages
        probe = self._apply([*others, replace(last, content=_PROBE)], example)
        place = probe.find(_PROBE, start)
        header = probe[start:place] if place >= 0 else ""
        # A lone blank is left to the answer: the model has to write it after the prompt that it is given.
        return len(header) if header.strip() and turn.startswith(header) else 0

    def _apply(
        self, messages: Sequence[Message], example: Example, *, add_generation_prompt: bool = False
    ) -> str:
        tools: list[Any] | None = [dict(tool) for tool in example.tools] if example.tools else None
        try:
            rendered = self._tokenizer.apply_chat_template(
                [message.as_dict() for message in messages],
                tools=tools,
                chat_template=self._template,
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


def _trains(messages: Sequence[Message], number: int, example: Example) -> bool:
    return number >= example.num_context_messages and messages[number].train


def _inconsistent(number: int, total: int) -> str:
    return (
        f"the chat template is not prefix-consistent: what it prints for the first {number + 1} of {total}"
        " messages is not how the whole conversation begins, so the assistant's turns cannot be located. Set"
        " chat_template to a template that marks them with {% generation %} ... {% endgeneration %}"
    )


def _cut_marks(rendered: str) -> tuple[str, list[tuple[int, int]]]:
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
