"""Generation with a key-value cache: transformers' texts, the same in any pack, one token per pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lora_runner.adapters import save_adapter
from lora_runner.layers.linear import pack_order
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.convert_model import silence_dropout
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.configs import CONFIGS
from tests.lora_runner.plain_models import plain_nf4

TINY = Callable[..., Path]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12], [20, 30], list(range(40, 69)), [7, 8, 9], [66, 3, 80]]
STOPS = frozenset(range(2, 40))
"""So many that texts of random models end at different lengths."""


def trained(pack: Pack, lora_r: int, seed: int) -> Seat:
    """A seat whose adapters change every logit."""
    config = replace(CONFIGS[0], lora_r=lora_r, seed=seed)
    seat, generator = pack.new_seat(config), torch.Generator().manual_seed(seed)
    for parameter in seat.parameters.values():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return seat


@pytest.fixture(scope="module", params=["llama", "gemma2", "mistral", "bfloat16"])
def any_pack(request: pytest.FixtureRequest, new_pack: Callable[..., Pack]) -> Pack:
    """Grouped heads, eager attention with soft caps, sliding windows of six tokens, half precision."""
    if request.param == "bfloat16":
        return new_pack(spec={"compute_dtype": "bfloat16"})
    return new_pack(request.param)


def test_a_seats_texts_are_its_own_in_any_pack(any_pack: Pack) -> None:
    assert any_pack.generator.uncached_reason == ""
    seats = [None, *(trained(any_pack, r, seed) for seed, r in enumerate((8, 32, 6, 8)))]
    together = any_pack.generate(seats, PROMPTS, 12, stop_token_ids=STOPS)
    alone = [any_pack.generate([seat], PROMPTS, 12, stop_token_ids=STOPS)[0] for seat in seats]
    assert together == alone
    lengths = {len(new) for texts in together for new in texts}
    assert len(lengths) > 3, "texts should end at unlike lengths"
    assert len({str(texts) for texts in together}) == len(seats)


def logits_of(pack: Pack, seats: Sequence[Seat], steps: int) -> list[torch.Tensor]:
    """Logits of the next token of each seat's prompts, then of `steps` given tokens."""
    order = pack_order(seats)
    seats = [seats[i] for i in order]
    cache = KeyValueCache(
        [list(map(len, PROMPTS))] * len(seats), steps, mix_blocks=pack.attention.can_mix_blocks
    )
    blocks, seen = [Block.next_token(PROMPTS, pack.base.device)] * len(seats), []
    for step in range(steps + 1):
        with torch.no_grad():
            seen.append(pack.logits(seats, blocks, pack.layout, cache))
        blocks = [Block.next_token([[3 + step]] * len(PROMPTS), pack.base.device)] * len(seats)
    found = {index: torch.cat(parts) for index, parts in zip(order, zip(*seen, strict=True), strict=True)}
    return [found[index] for index in range(len(seats))]


def test_logits_are_the_same_to_the_bit_beside_neighbours(any_pack: Pack) -> None:
    seats = [trained(any_pack, r, seed) for seed, r in enumerate((8, 32, 6, 8))]
    for seat, beside in zip(seats, logits_of(any_pack, seats, 9), strict=True):
        assert torch.equal(beside, logits_of(any_pack, [seat], 9)[0])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "opt"])
def test_texts_are_those_of_transformers_with_the_saved_adapter(
    new_pack: Callable[..., Pack], kind: str, tmp_path: Path
) -> None:
    pack = new_pack(kind, train_embeddings=False)
    seat = trained(pack, 8, 4)
    ours = pack.generate([seat], PROMPTS, 8)[0]
    save_adapter(tmp_path, pack, seat)
    base = plain_nf4(pack.base.spec.model)
    model = PeftModel.from_pretrained(base, str(tmp_path)).train()  # see test_adapters: loss_of
    silence_dropout(model)
    for prompt, new in zip(PROMPTS, ours, strict=True):
        out = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=1,
            pad_token_id=1,
        )
        tail = out[0, len(prompt) :].tolist()
        assert new == (tail[: tail.index(1)] if 1 in tail else tail)


def test_a_new_token_costs_the_pass_of_one_token(pack: Pack) -> None:
    tokens: list[int] = []
    hook = pack.model.get_input_embeddings().register_forward_hook(
        lambda _module, given, _out: tokens.append(given[0].numel())
    )
    assert pack.generator.uncached_reason == ""
    tokens.clear()
    seats = [trained(pack, 8, 1), trained(pack, 8, 2)]
    texts = pack.generate(seats, PROMPTS, 6, stop_token_ids=())
    hook.remove()
    assert all(len(new) == 6 for seat in texts for new in seat)
    # The last new token needs no pass.
    assert tokens == [2 * sum(map(len, PROMPTS)), *[2 * len(PROMPTS)] * 5]


def test_texts_that_have_ended_leave_the_pass(pack: Pack) -> None:
    seat = trained(pack, 8, 1)
    free = pack.generate([seat], PROMPTS, 6, stop_token_ids=())[0]
    stop = free[1][2]
    tokens: list[int] = []
    hook = pack.model.get_input_embeddings().register_forward_hook(
        lambda _module, given, _out: tokens.append(given[0].numel())
    )
    texts = pack.generate([seat], PROMPTS, 6, stop_token_ids=[stop])[0]
    hook.remove()
    ends = [new.index(stop) if stop in new else 6 for new in free]
    assert texts == [new[:end] for new, end in zip(free, ends, strict=True)]
    assert ends[1] <= 2
    left = [sum(end >= n for end in ends) for n in range(1, 6)]
    assert tokens == [sum(map(len, PROMPTS)), *(count for count in left if count)]


def test_prompts_in_batches_give_the_same_texts(pack: Pack) -> None:
    seats = [trained(pack, 8, 1), trained(pack, 32, 2)]
    at_once = pack.generate(seats, PROMPTS, 8)
    assert pack.generate(seats, PROMPTS, 8, batch_size=2) == at_once


def test_no_text_grows_beyond_the_models_positions(new_pack: Callable[..., Pack]) -> None:
    pack = new_pack("gpt2", train_embeddings=False, n_positions=32)
    seat = trained(pack, 8, 1)
    texts = pack.generate([seat], [*PROMPTS, list(range(2, 34))], 12, stop_token_ids=())[0]
    assert [len(new) for new in texts] == [12, 12, 3, 12, 12, 0]


def test_a_model_of_padded_rows_computes_whole_texts_and_says_why(new_pack: Callable[..., Pack]) -> None:
    pack = new_pack("bloom", train_embeddings=False)
    assert "needs the rectangular layout" in pack.generator.uncached_reason
    seats = [trained(pack, 8, 1), trained(pack, 32, 2)]
    together = pack.generate(seats, PROMPTS, 6, stop_token_ids=STOPS)
    assert together == [pack.generate([seat], PROMPTS, 6, stop_token_ids=STOPS)[0] for seat in seats]


def test_a_cache_that_changes_the_logits_is_not_used(
    new_pack: Callable[..., Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = new_pack("llama", train_embeddings=False)
    whole = pack.generate([None], PROMPTS, 6)
    broken = new_pack("llama", train_embeddings=False)
    monkeypatch.setattr(KeyValueCache, "positions", property(lambda cache: [0] * len(cache._lengths)))
    assert "a cache changes its logits" in broken.generator.uncached_reason
    assert broken.generate([None], PROMPTS, 6) == whole
