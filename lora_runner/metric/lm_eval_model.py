"""One seat of a pack as an lm-eval model: likelihoods of continuations, and generated answers.

It implements the three methods of `lm_eval.api.model.LM` without importing the package; requests hold their
texts in `args`. Texts are tokenized as lm-eval's own model class for transformers does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lora_runner.layout.pack_layout import Block
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat

Pair = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation."""


class Request(Protocol):
    """A request of lm-eval: `args` are its texts, then the generation arguments if any."""

    @property
    def args(self) -> tuple[Any, ...]: ...


class TaskModel:
    """The seat's likelihoods and greedy answers, `batch_size` texts at a time; None is the plain base.

    Answers have at most `max_gen_toks` tokens if the task gives that, else `max_new_tokens`.
    """

    def __init__(self, pack: Pack, seat: Seat | None, *, batch_size: int, max_new_tokens: int) -> None:
        super().__init__()
        self._pack, self._seat = pack, seat
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        self._tokenizer = pack.base.tokenizer

    def loglikelihood(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """For each (context, continuation): its log-probability, and whether it is the greedy answer."""
        return self._log_probabilities([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Request]) -> list[float]:
        """Log-probability of each (text,) from its first token on; long texts in windows, each token once."""
        windows = [self._windows(self._encode(request.args[0])) for request in requests]
        values = iter(self._log_probabilities([pair for pairs in windows for pair in pairs]))
        return [sum(next(values)[0] for _ in pairs) for pairs in windows]

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """The answer to each (context, {"until": ..., "max_gen_toks": ...}), up to the first of `until`."""
        found = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            length = answer_length(request.args[1], self._max_new_tokens)
            by_length.setdefault(length, []).append(index)
        for length, indices in by_length.items():
            most = self._pack.max_positions
            room = None if most is None else max(1, most - length)
            texts_before = [requests[i].args[0] for i in indices]
            prompts = [(self._encode(text) or [self._first_token])[-(room or 0) :] for text in texts_before]
            [texts] = self._pack.generate([self._seat], prompts, length, batch_size=self._batch_size)
            for index, ids in zip(indices, texts, strict=True):
                text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
                found[index] = _until(text, requests[index].args[1].get("until"))
        return found

    def _log_probabilities(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        asked = [i for i, (_, continuation) in enumerate(pairs) if continuation]
        # Batches of similar length; the order depends only on the texts.
        asked.sort(key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        for start in range(0, len(asked), self._batch_size):
            indices = asked[start : start + self._batch_size]
            batch = [self._shortened(*pairs[i]) for i in indices]
            block = Block.after(batch, self._pack.base.device)
            sizes = [len(continuation) for _, continuation in batch]
            values, is_greedy = (
                part.cpu().split(sizes) for part in self._pack.log_probabilities(self._seat, block)
            )
            for index, value, greedy in zip(indices, values, is_greedy, strict=True):
                found[index] = float(value.sum()), bool(greedy.all())
        return found

    def _shortened(self, context: list[int], continuation: list[int]) -> Pair:
        """The end of a text that has more tokens than the model has positions."""
        most = self._pack.max_positions
        if most is None or len(context) + len(continuation) - 1 <= most:
            return context, continuation
        whole = [*context, *continuation][-(most + 1) :]
        kept = min(len(continuation), most)
        return whole[:-kept], whole[-kept:]

    def _windows(self, ids: list[int]) -> list[Pair]:
        """Windows that predict each token once, after as much context as fits."""
        most = self._pack.max_positions or max(1, len(ids))
        whole, pairs = [self._first_token, *ids], []
        done = 1
        while done < len(whole):
            end = min(len(whole), done + most)
            pairs.append((whole[max(0, end - most - 1) : done], whole[done:end]))
            done = end
        return pairs

    def _pair(self, context: str, continuation: str) -> Pair:
        if not context:
            after = self._encode(continuation, add_special_tokens=False)
            if after and after[0] == self._first_token:
                return after[:1], after[1:]
            return [self._first_token], after
        # Spaces at the end of a context belong to the next word.
        bare = context.rstrip()
        continuation, context = context[len(bare) :] + continuation, bare
        before = self._encode(context)
        whole = self._encode(context + continuation)
        return before or [self._first_token], whole[len(before) :]

    def _encode(self, text: str, **options: Any) -> list[int]:
        begin = self._tokenizer.bos_token
        if begin and text.startswith(begin):
            options = {"add_special_tokens": False}
        ids = self._tokenizer.encode(text, **options)
        return [int(token) for token in ids]

    @property
    def _first_token(self) -> int:
        """The token before a text without context."""
        tokenizer = self._tokenizer
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return 0 if first is None else int(first)


def answer_length(arguments: Mapping[str, Any], otherwise: int) -> int:
    """The maximum length of an answer: the task's `max_gen_toks`, or `otherwise`."""
    given = next((arguments[name] for name in _LENGTHS if arguments.get(name) is not None), None)
    return otherwise if given is None else int(given)


_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names under which tasks give that length."""


def _until(text: str, ends: str | Sequence[str] | None) -> str:
    for end in [ends] if isinstance(ends, str) else ends or ():
        if end:
            text = text.split(end)[0]
    return text
