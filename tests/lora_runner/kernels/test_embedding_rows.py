"""Trained embeddings of several seats: their rows, and their gradients, alone and beside other seats'."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from lora_runner.fused.embeddings import EmbeddingPass, FusedEmbedding
from lora_runner.kernels.embedding_rows import add_embedding_gradients, embedding_rows
from lora_runner.layers.embeddings import PackedEmbedding
from lora_runner.layers.linear import PackContext, RowOwners
from lora_runner.layout.embedding_tables import NONE, EmbeddingTables, OwnRows
from lora_runner.layout.pack_layout import Block, plan_layouts
from tests.lora_runner.kernels.interpreter import DEVICE

VOCABULARY, GAP = 40, 1024

pytestmark = pytest.mark.usefixtures("seed")


class Seats:
    """A flat buffer with the copies of some seats, and the tables of a pass over their tokens."""

    def __init__(
        self, width: int, tokens: list[tuple[np.ndarray, bool]], token_ids: tuple[int, ...] = ()
    ) -> None:
        """`tokens`: ids of each block, and whether its seat trains a copy."""
        self.width = width
        self.rows = [
            OwnRows(GAP + index * GAP * 16, token_ids) if owns else None
            for index, (_, owns) in enumerate(tokens)
        ]
        self.parameters = torch.randn(GAP * (1 + 16 * len(tokens)), device=DEVICE)
        self.gradients = torch.randn_like(self.parameters)
        self.ids = [ids for ids, _ in tokens]

    def matrix(self, flat: Tensor, index: int) -> Tensor:
        rows = self.rows[index]
        assert rows is not None
        num = len(rows.token_ids) or VOCABULARY
        return flat[rows.start : rows.start + num * self.width].view(num, self.width)

    def tables(self, num_rows: int, padding_idx: int = NONE) -> EmbeddingTables:
        made = EmbeddingTables.empty(num_rows, DEVICE)
        places = [
            np.full(len(ids), NONE) if rows is None else rows.places(ids, self.width)
            for rows, ids in zip(self.rows, self.ids, strict=True)
        ]
        made.refresh(np.concatenate(places), np.concatenate(self.ids) != padding_idx)
        return made

    def all_ids(self, num_rows: int) -> Tensor:
        ids = np.concatenate(self.ids)
        return torch.from_numpy(np.pad(ids, (0, num_rows - len(ids)))).to(DEVICE)


def drawn_ids(number: int) -> np.ndarray:
    # Few distinct ones, so that some are read by more tokens than a program adds at a time.
    return np.random.default_rng().choice([0, 1, 2, 3, 5, 8, 21, 39], number)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("width", "token_ids"), [(48, ()), (264, (1, 5, 30)), (7, ())])
def test_rows_are_the_seats_own_or_the_bases(
    width: int, token_ids: tuple[int, ...], dtype: torch.dtype
) -> None:
    seats = Seats(width, [(drawn_ids(9), True), (drawn_ids(5), False), (drawn_ids(12), True)], token_ids)
    weight = torch.randn(VOCABULARY, width, device=DEVICE).to(dtype)
    ids = seats.all_ids(32)
    found = embedding_rows(seats.parameters, weight, ids, seats.tables(32), 1.0)
    expected = weight[ids].clone()
    for index, start in ((0, 0), (2, 14)):
        for row, token in enumerate(seats.ids[index].tolist(), start):
            if token_ids and token not in token_ids:
                continue
            own = token_ids.index(token) if token_ids else token
            expected[row] = seats.matrix(seats.parameters, index)[own].to(dtype)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("width", "token_ids"), [(48, ()), (600, (1, 5, 30))])
def test_gradients_are_added_to_the_rows_of_each_seat(
    width: int, token_ids: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Beside float64: float32 adds at most 60 terms."""
    seats = Seats(width, [(drawn_ids(60), True), (drawn_ids(5), False), (drawn_ids(20), True)], token_ids)
    grad = torch.randn(96, width, device=DEVICE).to(dtype)
    before = seats.gradients.clone()
    add_embedding_gradients(seats.gradients, grad, seats.tables(96, padding_idx=3), 0.5)
    expected = before.double()
    sizes = expected.abs()
    for index, start in ((0, 0), (2, 65)):
        for row, token in enumerate(seats.ids[index].tolist(), start):
            if token == 3 or (token_ids and token not in token_ids):
                continue
            own = token_ids.index(token) if token_ids else token
            seats.matrix(expected, index)[own] += 0.5 * grad[row].double()
            seats.matrix(sizes, index)[own] += 0.5 * grad[row].double().abs()
    error = (seats.gradients.double() - expected).abs()
    assert bool((error <= 60 * torch.finfo(torch.float32).eps * sizes).all())
    assert torch.equal(seats.gradients[expected == before], before[expected == before])


def test_a_seats_gradients_are_the_same_bits_alone_and_beside_others() -> None:
    own, others = drawn_ids(70), [drawn_ids(n) for n in (33, 8)]
    alone = Seats(48, [(own, True)])
    grad = torch.randn(128, 48, device=DEVICE)
    add_embedding_gradients(alone.gradients.zero_(), grad[:70].contiguous(), alone.tables(70), 1.0)
    packed = Seats(48, [(others[0], True), (own, True), (others[1], False)])
    together = torch.full((128, 48), torch.nan, device=DEVICE)
    together[33:103] = grad[:70]
    add_embedding_gradients(packed.gradients.zero_(), together, packed.tables(128), 1.0)
    assert torch.equal(packed.matrix(packed.gradients, 1), alone.matrix(alone.gradients, 0))


def test_tables_are_refreshed_in_place() -> None:
    tables = EmbeddingTables.empty(6, DEVICE)
    views = (tables.row_places, tables.order, tables.group_places, tables.group_starts)
    addresses = [view.data_ptr() for view in views]
    # Kernels would be compiled again where the alignment of an argument changes.
    assert {(address - tables.buffer.data_ptr()) % 16 for address in addresses} == {0}
    tables.refresh(np.array([80, NONE, 0, 80, 160]), np.array([True, True, True, True, False]))
    assert tables.row_places.tolist() == [80, NONE, 0, 80, 160, NONE]
    assert tables.order.tolist()[:3] == [2, 0, 3]
    assert tables.group_places.tolist()[:2] == [0, 80]
    assert tables.group_starts.tolist() == [0, 1, 3, 3, 3, 3, 3]
    tables.refresh(np.array([NONE]), np.array([True]))
    assert tables.row_places.tolist() == [NONE] * 6
    assert tables.group_starts.tolist() == [0] * 7
    assert addresses == [view.data_ptr() for view in views]
    with pytest.raises(ValueError, match="6 rows cannot hold 7"):
        tables.refresh(np.zeros(7, dtype=np.int64), np.ones(7, dtype=bool))


class EmbeddingsOnly:
    """As much of a seat as embeddings ask for."""

    padded_rank, scaling = 8, 1.0

    def __init__(self, name: str, parameters: Tensor, gradients: Tensor) -> None:
        self.saved, self.saved_gradients = {name: parameters}, {name: gradients}


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("token_ids", [(), (2, 8, 21)])
def test_the_module_computes_what_the_general_path_does(is_scaled: bool, token_ids: tuple[int, ...]) -> None:
    width, num_rows, padding = 32, 64, 3
    base: nn.Embedding = (
        Gemma3TextScaledWordEmbedding(VOCABULARY, width, padding, embed_scale=width**0.5)
        if is_scaled
        else nn.Embedding(VOCABULARY, width, padding)
    )
    base.to(DEVICE).requires_grad_(False)
    context = PackContext()
    module = PackedEmbedding(base, "embed", context)
    if token_ids:
        module.train_only(token_ids)
    ids = [drawn_ids(20), drawn_ids(30)]
    ((_, layout),) = plan_layouts([Block.of([(each, each)], DEVICE) for each in ids], "end_to_end")
    flat = Seats(width, [(ids[0], True)], token_ids)
    own = EmbeddingsOnly("embed", flat.matrix(flat.parameters, 0), flat.matrix(flat.gradients, 0))
    seats = [own, None]
    grad = torch.randn(1, 50, width, device=DEVICE)

    context.rows = RowOwners(seats, layout.sizes)  # type: ignore[arg-type]
    context.distinct_ids = [block.distinct_ids for block in layout.blocks]
    context.distinct_indices = layout.distinct_indices
    context.anchor = torch.zeros((), device=DEVICE, requires_grad=True)
    flat.gradients.zero_()
    expected = module(layout.inputs["input_ids"])
    expected.backward(grad)
    expected_gradients = flat.gradients.clone()

    fused, tables = FusedEmbedding(module, context), EmbeddingTables.empty(num_rows, DEVICE)
    assert torch.equal(module(layout.inputs["input_ids"]), expected)  # outside of fused passes
    fused.write(tables, seats, layout)  # type: ignore[arg-type]
    context.fused = SimpleNamespace(embeddings=EmbeddingPass(tables, flat.parameters, flat.gradients))
    flat.gradients.zero_()
    found = module(nn.functional.pad(layout.inputs["input_ids"], (0, num_rows - 50)))
    found.backward(nn.functional.pad(grad, (0, 0, 0, num_rows - 50), value=torch.nan))
    assert torch.equal(found[:, :50], expected)
    error = (flat.gradients - expected_gradients).abs().max()
    assert error <= 20 * torch.finfo(torch.float32).eps * expected_gradients.abs().max()


def test_embeddings_that_are_no_scaled_rows_have_no_fused_form() -> None:
    class Shifted(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) + 1.0

    context = PackContext()
    module = PackedEmbedding(Shifted(VOCABULARY, 32).to(DEVICE).requires_grad_(False), "embed", context)
    with pytest.raises(ValueError, match="more than the scaled rows"):
        FusedEmbedding(module, context)
