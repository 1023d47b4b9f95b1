"""Conversations -> texts with the spans that carry loss, matching the prompts that a server sends.

`marked`: the template marks the assistant's turns with {% generation %}; the marks are followed.
`whole`: each prefix of the conversation renders to a prefix of the whole, so one text serves all turns.
`per turn`: one text per assistant turn: the rendered turns before it with the generation prompt, and what the
template adds when that turn is last.
`all`: loss on every token (`completion_only: false`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import TYPE_CHECKING

from lora_runner.data.chat.chat_template import PROBE, ChatTemplate, Span, Tools
from lora_runner.data.chat.dropped_content import (
    SECOND_THOUGHT_NOTE,
    check_tools_printed,
    check_turn_printed,
    is_plainly_printed,
    prints_a_second_thought,
    unprinted_context,
)
from lora_runner.data.chat.end_of_turn import EndOfTurn
from lora_runner.data.records.example import Example, Message
from lora_runner.data.records.record import BadRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RENDERED_DIFFERENTLY = (
    "the chat template prints an earlier turn differently than when that turn is last (for example without"
    " its reasoning)"
)


@dataclass(frozen=True, kw_only=True)
class RenderedChat:
    """A text to train on."""

    text: str
    spans: tuple[Span, ...]
    """Ranges of characters that carry loss."""
    stops: tuple[str | None, ...]
    """For each span the stop token inside it that ends the turn, or None."""
    way: str
    """`marked`, `whole`, `per turn` or `all`."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how it was rendered."""


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One assistant turn with loss, as the template renders it when it is last."""

    number: int
    prompt: str
    """What a server sends: the turns before it and the generation prompt."""
    text: str
    """The turns up to and including it."""


class ChatRenderer:
    """Renders conversations with one template, and finds the assistant turns in the text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._template = ChatTemplate(tokenizer, template)
        self._ends = EndOfTurn(tokenizer, self._template)

    def render(self, example: Example, *, completion_only: bool = True) -> list[RenderedChat]:
        """Render one conversation; with `completion_only` False all of it carries loss.

        Raises BadRecord when the template rejects it, drops part of an answer, or renders a turn so that it
        cannot be separated from the turns before it; DataError when the template is broken.
        """
        messages = example.messages or ()
        tools = example.tools
        check_tools_printed(self._template, messages, tools)
        wanted = [
            number
            for number, message in enumerate(messages)
            if message.role == "assistant" and message.train and number >= example.num_context_messages
        ]
        chats = self._chats(messages, wanted, tools, completion_only=completion_only)
        read = messages[: wanted[-1] + 1] if wanted and completion_only else messages
        notes = unprinted_context(self._template, read, tools, chats[-1].text)
        return [replace(chat, notes=(*chat.notes, *notes)) for chat in chats]

    def _chats(
        self, messages: Sequence[Message], wanted: Sequence[int], tools: Tools, *, completion_only: bool
    ) -> list[RenderedChat]:
        """Render a conversation in the way that its template allows."""
        if not completion_only:
            return [self._all_tokens(messages, tools)]
        if self._template.is_marked:
            return [self._marked(messages, wanted, tools)]
        turns = [
            _Turn(
                number=number,
                prompt=self._template.render(messages[:number], tools, add_generation_prompt=True),
                text=self._template.render(messages[: number + 1], tools),
            )
            for number in wanted
        ]
        for turn in turns:
            start = _common_prefix_length(turn.prompt, turn.text)
            check_turn_printed(self._template, messages, turn.number, tools, turn.text, start)
        whole = self._whole(messages, turns, tools)
        chats = [self._single_turn(messages, turn, tools) for turn in turns] if whole is None else [whole]
        if any(
            prints_a_second_thought(messages[turn.number], turn.text[len(turn.prompt) :]) for turn in turns
        ):
            return [replace(chat, notes=(*chat.notes, SECOND_THOUGHT_NOTE)) for chat in chats]
        return chats

    def _all_tokens(self, messages: Sequence[Message], tools: Tools) -> RenderedChat:
        text = self._template.render(messages, tools)
        stop, notes = None, set[str]()
        for number, turn in enumerate(messages):
            if turn.role != "assistant" or not turn.train:
                continue
            alone = self._template.render(messages[: number + 1], tools)
            check_turn_printed(self._template, messages, number, tools, alone, 0)
            if text.startswith(alone := alone.rstrip()):
                stop = self._ends.close(text, (0, len(alone)))[1] or stop
            else:
                notes.add(_RENDERED_DIFFERENTLY)
        if messages[-1].role == "assistant":
            text, _, stop = self._with_stop_token(text, (0, len(text)), messages[-1])
        return RenderedChat(
            text=text, spans=((0, len(text)),), stops=(stop,), way="all", notes=tuple(sorted(notes))
        )

    def _marked(self, messages: Sequence[Message], wanted: Sequence[int], tools: Tools) -> RenderedChat:
        text, marks = self._template.render_marked(messages, tools)
        owners = self._owners(messages, marks, wanted, tools)
        notes: set[str] = set()
        for number in wanted:
            if not is_plainly_printed(messages[number], text):
                notes |= self._rendered_only_when_last(messages, number, tools, text)
        spans: list[Span] = []
        stops: list[str | None] = []
        for index, ((start, end), owner) in enumerate(zip(marks, owners, strict=True)):
            if owner is not None and owner not in wanted:
                continue
            closed, stop = self._ends.close(text, (start, end))
            added = None
            if (
                stop is None
                and index == len(marks) - 1
                and not text[end:].strip()
                and self._ends.kind == "marker"
            ):
                added = self._ends.missing(messages[-1])
            if added is not None:
                text, closed, stop = text[:end] + added[0], end + len(added[0]), added[1]
            # As in transformers' masks, white space after the stop token keeps its loss if it is marked.
            spans.append((start, max(end, closed)))
            stops.append(stop)
        return RenderedChat(
            text=text, spans=tuple(spans), stops=tuple(stops), way="marked", notes=tuple(sorted(notes))
        )

    def _owners(
        self, messages: Sequence[Message], marks: Sequence[Span], wanted: Sequence[int], tools: Tools
    ) -> list[int | None]:
        """Return the turn number of each mark; None where all turns carry loss anyway."""
        turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
        if len(wanted) == len(turns):
            return [None] * len(marks)
        if len(marks) == len(turns):
            return [*turns]
        counts = [len(self._template.render_marked(messages[: number + 1], tools)[1]) for number in turns]
        if counts != sorted(counts) or counts[-1] != len(marks):
            raise BadRecord(
                f"the chat template marks {len(marks)} ranges with {{% generation %}} where the record has"
                f" {len(turns)} assistant turns, so those without loss cannot be identified"
            )
        return [
            number
            for number, before, up_to_here in zip(turns, [0, *counts], counts, strict=False)
            for _ in range(up_to_here - before)
        ]

    def _rendered_only_when_last(
        self, messages: Sequence[Message], number: int, tools: Tools, text: str
    ) -> set[str]:
        """Check a turn of a marked template; return a remark if it is complete only when last."""
        alone = self._template.render(messages[: number + 1], tools)
        check_turn_printed(self._template, messages, number, tools, alone, 0)
        if text.startswith(alone.rstrip()):
            return set()
        return {f"{_RENDERED_DIFFERENTLY}; its {{% generation %}} marks are followed as they are"}

    def _whole(
        self, messages: Sequence[Message], turns: Sequence[_Turn], tools: Tools
    ) -> RenderedChat | None:
        """Return one text with all turns, or None if some server's prompt is not a prefix of it."""
        text = self._template.render(messages, tools)
        if self._ends.kind == "none" and turns:
            return None  # EOS ends a text, so each turn needs its own
        spans: list[Span] = []
        stops: list[str | None] = []
        for turn in turns:
            if not (turn.text.startswith(turn.prompt) and text.startswith(turn.text)):
                return None
            span = (self._start_of_turn(messages, turn, tools), len(turn.text))
            if turn.number == len(messages) - 1:
                text, end, stop = self._with_stop_token(text, span, messages[turn.number])
            else:
                end, stop = self._ends.close(text, span)
            spans.append((span[0], end))
            stops.append(stop)
        return RenderedChat(text=text, spans=tuple(spans), stops=tuple(stops), way="whole")

    def _with_stop_token(self, text: str, span: Span, turn: Message) -> tuple[str, int, str | None]:
        """Return the text with the stop token of its last turn, the end of its loss, and the token."""
        end, stop = self._ends.close(text, span)
        added = self._ends.missing(turn) if stop is None else None
        if added is None:
            return text, end, stop
        text = text.removesuffix(self._ends.blank)
        return text + added[0], len(text) + len(added[0]), added[1]

    def _single_turn(self, messages: Sequence[Message], turn: _Turn, tools: Tools) -> RenderedChat:
        """Return the text that trains one turn only."""
        text, notes = turn.text, tuple[str, ...]()
        if turn.text.startswith(turn.prompt):
            start = self._start_of_turn(messages, turn, tools)
        else:
            text, start, notes = self._separated_turn(messages, turn, tools)
        text, end, stop = self._with_stop_token(text, (start, len(text)), messages[turn.number])
        return RenderedChat(
            text=text[:end], spans=((start, end),), stops=(stop,), way="per turn", notes=notes
        )

    def _start_of_turn(self, messages: Sequence[Message], turn: _Turn, tools: Tools) -> int:
        """Return where the turn begins in its text, which starts with its prompt."""
        start = len(turn.prompt)
        if turn.number and self._template.generation_prompt != "":
            # After a tool result some templates print no generation prompt, but its header before the answer
            # (DiffusionGemma). It must carry no loss, or the model would learn to write a role's name.
            header = self._template.generation_prompt or ""
            return start + len(header) if turn.text.startswith(header, start) else start
        before = self._text_before_content(messages, turn, tools)
        # A single space belongs to the answer: the model must write it after the prompt.
        header = before[start:] if before is not None else ""
        return len(before) if before and header.strip() and turn.text.startswith(before) else start

    def _text_before_content(self, messages: Sequence[Message], turn: _Turn, tools: Tools) -> str | None:
        """Return the text up to the content of a turn; None if the content is not rendered."""
        *others, last = messages[: turn.number + 1]
        probe = self._template.render([*others, replace(last, content=PROBE)], tools)
        return probe[: probe.rfind(PROBE)] if PROBE in probe else None

    def _separated_turn(
        self, messages: Sequence[Message], turn: _Turn, tools: Tools
    ) -> tuple[str, int, tuple[str, ...]]:
        """Return text, start of the loss and remarks for a turn whose text does not start with its prompt."""
        history = self._template.render(messages[: turn.number], tools)
        history = history[: _common_prefix_length(turn.prompt, history)]
        header = turn.prompt[len(history) :]
        words = self._after_header(messages[: turn.number], tools, turn.text, header)
        before = self._text_before_content(messages, turn, tools)
        if (
            words is None
            and before is not None
            and turn.text.startswith(before)
            and header.strip()
            and before.rstrip().endswith(header.strip())
        ):
            words = turn.text[len(before) :]
        if words is not None:
            # The turns before it are rendered differently once it follows; a server sends them as they were.
            return turn.prompt + words, len(turn.prompt), ()
        # The answer may happen to begin like the rest of the prompt; `before` excludes its content.
        shared = _common_prefix_length(turn.prompt, turn.text, turn.text if before is None else before)
        if header and shared >= len(history):
            rest = turn.prompt[shared:][:40]
            note = (
                f"a server's prompt continues with {rest!r}, which the chat template does not print before"
                " the answer: the loss begins where the two differ"
            )
            return turn.text, shared, (note,)
        raise BadRecord(
            f"turn {turn.number + 1}: the chat template prints the turns before it differently with the"
            " generation prompt than with the answer, so the answer cannot be separated from"
            " its prompt. Set chat_template to a template that marks the answers with"
            " {% generation %} ... {% endgeneration %}"
        )

    def _after_header(self, messages: Sequence[Message], tools: Tools, text: str, header: str) -> str | None:
        """Return the part of `text` after the `header` that follows the last of `messages`; None if that
        turn is not found in `text` as it is rendered when it is last."""
        if not header.strip():
            return None
        *others, last = messages
        history = self._template.render(messages, tools)
        probe = self._template.render([*others, replace(last, content=PROBE + last.content)], tools)
        if not last.content.strip() or probe.replace(PROBE, "") != history:
            return None
        # A template may print its header several times in one turn, before reasoning and answer.
        starts = [match.start() for match in re.finditer(re.escape(header), text)]
        alike = {start: _common_prefix_length(text[:start][::-1], history[::-1]) for start in starts}
        start = max(starts, key=alike.__getitem__, default=0)
        found = alike.get(start, 0) >= len(history) - probe.index(PROBE)
        return text[start + len(header) :] if found else None


def _common_prefix_length(*texts: str) -> int:
    """Return the length of the common prefix."""
    return len(commonprefix(texts))  # noqa: RUF071 - of characters, not of paths
