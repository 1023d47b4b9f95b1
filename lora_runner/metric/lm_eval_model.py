"""One seat of a pack as the model that lm-eval asks: likelihoods of continuations, and answers.

It has the three methods of `lm_eval.api.model.LM` and needs nothing of that package, whose requests carry
their texts as `args`. Texts are tokenised as lm-eval's own model class for transformers does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lora_runner.layout.pack_layout import Block
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat

Pair = tuple[list[int], list[int]]
"""Token ids of a context, and of what follows it."""


class Request(Protocol):
    """What lm-eval asks: `args` are the texts, and for an answer how it is to be given."""

    @property
    def args(self) -> tuple[Any, ...]: ...


class TaskModel:
    """The seat's likelihoods and greedy answers, `batch_size` texts at a time; None is the untouched base.

    A task that does not say how long its answers may get (`max_gen_toks`) has them of `max_new_tokens`.
    """

    def __init__(self, pack: Pack, seat: Seat | None, *, batch_size: int, max_new_tokens: int) -> None:
        super().__init__()
        self._pack, self._seat = pack, seat
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        self._tokenizer = pack.base.tokenizer

    def loglikelihood(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): its log-probability, and whether it is the greedy answer."""
        return self._log_probabilities([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Request]) -> list[float]:
        """Log-probability of each (text,), from its first token on; long ones in windows, each token once."""
        windows = [self._windows(self._encode(request.args[0])) for request in requests]
        values = iter(self._log_probabilities([pair for pairs in windows for pair in pairs]))
        return [sum(next(values)[0] for _ in pairs) for pairs in windows]

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """The answer to each (context, {"until": ..., "max_gen_toks": ...}), up to the first of `until`."""
        found = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            length = answer_length(request.args[1], self._max_new_tokens)
            by_length.setdefault(length, []).append(place)
        for length, places in by_length.items():
            most = self._pack.max_positions
            room = None if most is None else max(1, most - length)
            texts_before = [requests[place].args[0] for place in places]
            prompts = [(self._encode(text) or [self._first_token])[-(room or 0) :] for text in texts_before]
            [texts] = self._pack.generate([self._seat], prompts, length, batch_size=self._batch_size)
            for place, ids in zip(places, texts, strict=True):
                text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
                found[place] = _until(text, requests[place].args[1].get("until"))
        return found

    def _log_probabilities(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        asked = [place for place, (_, continuation) in enumerate(pairs) if continuation]
        # Texts of about one length together; as everywhere, a matter of the texts alone.
        asked.sort(key=lambda place: len(pairs[place][0]) + len(pairs[place][1]))
        for start in range(0, len(asked), self._batch_size):
            places = asked[start : start + self._batch_size]
            batch = [self._shortened(*pairs[place]) for place in places]
            block = Block.after(batch, self._pack.base.device)
            sizes = [len(continuation) for _, continuation in batch]
            values, likeliest = (
                part.cpu().split(sizes) for part in self._pack.log_probabilities(self._seat, block)
            )
            for place, value, is_likeliest in zip(places, values, likeliest, strict=True):
                found[place] = float(value.sum()), bool(is_likeliest.all())
        return found

    def _shortened(self, context: list[int], continuation: list[int]) -> Pair:
        """The end of what has more tokens than the model has positions."""
        most = self._pack.max_positions
        if most is None or len(context) + len(continuation) - 1 <= most:
            return context, continuation
        whole = [*context, *continuation][-(most + 1) :]
        kept = min(len(continuation), most)
        return whole[:-kept], whole[-kept:]

    def _windows(self, ids: list[int]) -> list[Pair]:
        """Each token predicted once, after as many as the model takes; the first window begins the text."""
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
        # Blanks at the end of a context belong to the word that follows.
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
        """What stands before a text that nothing stands before."""
        tokenizer = self._tokenizer
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return 0 if first is None else int(first)


def answer_length(arguments: Mapping[str, Any], otherwise: int) -> int:
    """The most tokens of an answer: the task's `max_gen_toks`, or `otherwise`."""
    given = next((arguments[name] for name in _LENGTHS if arguments.get(name) is not None), None)
    return otherwise if given is None else int(given)


_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names under which tasks give that length."""


def _until(text: str, ends: str | Sequence[str] | None) -> str:
    for end in [ends] if isinstance(ends, str) else ends or ():
        if end:
            text = text.split(end)[0]
    return text
