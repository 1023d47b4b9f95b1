"""A seat as an lm-eval model, without the package: the numbers are transformers'."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_runner.metric.lm_eval_model import TaskModel
from lora_runner.pack.convert_model import silence_dropout
from lora_runner.pack.pack import Pack
from tests.lora_runner.pack.test_generation import trained
from tests.lora_runner.plain_models import plain_nf4

PAIRS = [("2+2=", "4"), ("the sky is", " blue"), ("a", "bcdefgh"), ("", "xyz"), ("q", ""), ("2+2=", "5")]


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args)


def model_of(pack: Pack, seat: Any = None, batch_size: int = 4) -> TaskModel:
    return TaskModel(pack, seat, batch_size=batch_size, max_new_tokens=6)


@pytest.fixture(scope="module")
def bare(new_pack: Callable[..., Pack]) -> Pack:
    """A pack that trains no embeddings, of a model with 24 positions."""
    return new_pack("gpt2", train_embeddings=False, n_positions=24)


@pytest.fixture(scope="module")
def log_softmax(bare: Pack) -> Callable[[list[int]], Tensor]:
    """Log-probabilities (t, V) of every next token by transformers alone."""
    plain = plain_nf4(bare.base.spec.model).train()  # see test_adapters: loss_of
    silence_dropout(plain)

    @torch.no_grad()
    def of(ids: list[int]) -> Tensor:
        return nn.functional.log_softmax(plain(input_ids=torch.tensor([ids])).logits[0].float(), -1)

    return of


def byte_ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_likelihoods_are_transformers_log_softmax(
    bare: Pack, log_softmax: Callable[[list[int]], Tensor]
) -> None:
    found = model_of(bare, batch_size=3).loglikelihood([asked(*pair) for pair in PAIRS])
    for (context, continuation), (value, greedy) in zip(PAIRS, found, strict=True):
        before = byte_ids(context) or [1]  # without a context the end token precedes the text
        logs, ids = log_softmax([*before, *byte_ids(continuation)])[:-1], byte_ids(continuation)
        rows = range(len(before) - 1, len(before) - 1 + len(ids))
        expected = sum(float(logs[row, token]) for row, token in zip(rows, ids, strict=True))
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == all(int(logs[row].argmax()) == token for row, token in zip(rows, ids, strict=True))
    likeliest = chr(int(log_softmax(byte_ids("2+2="))[-1].argmax()))
    assert model_of(bare).loglikelihood([asked("2+2=", likeliest)])[0][1] is True


def test_a_blank_between_the_two_belongs_to_the_word_after_it(bare: Pack) -> None:
    model = model_of(bare)
    assert model.loglikelihood([asked("is ", "on")]) == model.loglikelihood([asked("is", " on")])


def test_a_text_longer_than_the_model_is_taken_in_windows(
    bare: Pack, log_softmax: Callable[[list[int]], Tensor]
) -> None:
    text = "".join(chr(40 + i % 60) for i in range(50))
    ids = [1, *byte_ids(text)]
    expected = 0.0
    # Predicted tokens 1..24 and 25..48, then the last two after as much context as fits.
    for first, done, end in ((0, 1, 25), (24, 25, 49), (26, 49, 51)):
        logs = log_softmax(ids[first : end - 1])
        expected += sum(float(logs[place - 1 - first, ids[place]]) for place in range(done, end))
    [value] = model_of(bare).loglikelihood_rolling([asked(text)])
    assert value == pytest.approx(expected, rel=1e-5)
    # Only the end of a context that is too long is used.
    long, short = model_of(bare).loglikelihood([asked(text, "ab"), asked(text[-23:], "ab")])
    assert long[0] == pytest.approx(short[0], abs=1e-5)


def test_answers_are_the_packs_own_up_to_the_first_stop(pack: Pack) -> None:
    seat = trained(pack, 8, 2)
    tokenizer = pack.base.tokenizer
    [[ids]] = pack.generate([seat], [byte_ids("2+2=")], 6)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    model = model_of(pack, seat)
    assert model.generate_until([asked("2+2=", {"until": []})]) == [whole]
    assert len(set(whole)) > 1
    stop = next(letter for letter in whole[1:] if letter != whole[0])
    short, two = model.generate_until(
        [asked("2+2=", {"until": [stop]}), asked("2+2=", {"until": "", "max_gen_toks": 2})]
    )
    assert short == whole[: whole.index(stop)]
    assert two == tokenizer.decode(ids[:2], skip_special_tokens=True)


def test_a_seats_numbers_do_not_depend_on_its_neighbours_or_the_batch(pack: Pack) -> None:
    seat = trained(pack, 8, 1)
    requests = [asked(*pair) for pair in PAIRS]
    first = model_of(pack, seat).loglikelihood(requests)
    trained(pack, 32, 2)
    again = model_of(pack, seat).loglikelihood(requests)
    assert first == again
    assert first != model_of(pack).loglikelihood(requests)
    one_by_one = model_of(pack, seat, batch_size=1).loglikelihood(requests)
    assert [value for value, _ in one_by_one] == pytest.approx([value for value, _ in first], abs=1e-4)
