"""Finds the token with which a chat template ends an assistant turn, which the model must learn to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_runner.data.chat.chat_template import PROBE, ChatTemplate, Span
from lora_runner.data.records.example import Message
from lora_runner.data.records.record import BadRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = Message(role="user", content="a")
_ANSWER = Message(role="assistant", content=PROBE)
_CALL = Message(
    role="assistant",
    content="",
    extra={
        "tool_calls": [{"type": "function", "id": "call00000", "function": {"name": "f", "arguments": {}}}]
    },
)
_RESULT = Message(role="tool", content="a", extra={"name": "f", "tool_call_id": "call00000"})


class EndOfTurn:
    """How a template ends its turns, found by rendering a probe conversation.

    `printed`: it prints an end-of-turn token. `marker`: it prints none, and the first token of the next turn
    ends this one (GLM). `none`: it prints text only ("User: / Assistant:").
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
        self.eos = str(tokenizer.eos_token) if tokenizer.eos_token else None
        special = {str(token) for token in tokenizer.all_special_tokens}
        special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = special
        known = special | set(tokenizer.get_added_vocab())
        self._known = tuple(
            sorted((token for token in known if token), key=lambda token: (-len(token), token))
        )
        self._ends = {self.eos} if self.eos else set[str]()
        self.marker_of_user = self.marker_of_tool = ""
        """With kind `marker`: what the next turn begins with, up to and including its first token."""
        self.blank = ""
        """With kind `none`: the white space with which the template ends an answer."""
        try:
            answer = template.render([_QUESTION, _ANSWER])
        except BadRecord:
            self.kind = "printed"  # rejected even this conversation; the tokens of the record may tell
            return
        after = answer[answer.rfind(PROBE) + len(PROBE) :]
        end = self._last(after) if PROBE in answer else self.eos
        if end is not None:
            self.kind = "printed"
            self._ends.add(end)
            return
        self.marker_of_user = self._marker(template, answer, [_QUESTION, _ANSWER, _QUESTION])
        if not self.marker_of_user or self.marker_of_user.strip() == str(tokenizer.bos_token):
            self.kind, self.marker_of_user = "none", ""
            self.blank = after[len(after.rstrip()) :]
            return
        self.kind = "marker"
        try:
            call = template.render([_QUESTION, _CALL])
            self.marker_of_tool = self._marker(template, call, [_QUESTION, _CALL, _RESULT])
        except BadRecord:
            pass
        self.marker_of_tool = self.marker_of_tool or self.marker_of_user

    def _marker(self, template: ChatTemplate, before: str, messages: list[Message]) -> str:
        """Return the beginning of the next turn up to its first token; empty if it begins with text."""
        try:
            whole = template.render(messages)
        except BadRecord:
            return ""
        rest = whole[len(before) :] if whole.startswith(before) else ""
        blank = len(rest) - len(rest.lstrip())
        token = self._first(rest[blank:])
        return rest[:blank] + token if token else ""

    def close(self, text: str, span: Span) -> tuple[int, str | None]:
        """Return where the loss of the turn at `span` of `text` ends, and the token that ends the turn.

        The token is the last of the turn or follows it. White space after it is never generated, so it
        carries no loss. Returns (end of span, None) if no token ends the turn.
        """
        start, end = span
        kept = text[start:end].rstrip()
        last = self._at_end(kept)
        if last is not None and self._ends_turns(last):
            return start + len(kept), last
        blank = len(text[end:]) - len(text[end:].lstrip())
        following = self._first(text[end + blank :])
        if following is not None and (self.kind == "marker" or following in self._ends):
            return end + blank + len(following), following
        return end, None

    def missing(self, turn: Message) -> tuple[str, str] | None:
        """Return what to append to a last turn that no token ends, and the stop token in it; or None."""
        if self.kind == "marker":
            added = self.marker_of_tool if "tool_calls" in turn.extra else self.marker_of_user
            return added, added.lstrip()
        if self.kind == "none" and self.eos is not None:
            return self.eos, self.eos
        return None

    def _ends_turns(self, token: str) -> bool:
        # Tool calls may end with a token of their own, which the probe did not show.
        return token in self._ends or (self.kind == "printed" and token in self._special)

    def _at_end(self, text: str) -> str | None:
        if not text.endswith(self._known):
            return None
        return next(token for token in self._known if text.endswith(token))

    def _first(self, text: str) -> str | None:
        if not text.startswith(self._known):
            return None
        return next(token for token in self._known if text.startswith(token))

    def _last(self, text: str) -> str | None:
        ends = [(text.rfind(token) + len(token), token) for token in self._known if token in text]
        return max(ends, key=lambda end: end[0])[1] if ends else None
