"""A converted decoder whose parts compute for all trials of a pass in few launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from lora_runner.fused.attention.check import check_attention
from lora_runner.fused.attention.in_sequences import attend_in_sequences
from lora_runner.fused.compute_path import NotFusedError
from lora_runner.fused.embeddings import EmbeddingPass, FusedEmbedding
from lora_runner.fused.fused_pass import FusedPass, block_adapter
from lora_runner.fused.linear_group import LinearGroup
from lora_runner.fused.mlp import fuse_mlps
from lora_runner.fused.norms import fuse_norms
from lora_runner.fused.pass_inputs import PassInputs, PassKey
from lora_runner.fused.replaced import remove_fused_forwards
from lora_runner.fused.rotary import fuse_rotary, leave_rotary
from lora_runner.fused.siblings import find_siblings
from lora_runner.graphs.buckets import padded_count, padded_rank, padded_rows
from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.embeddings import PackedEmbedding
from lora_runner.layers.linear import PackContext, PackedLinear
from lora_runner.layout.pack_layout import Layout
from lora_runner.layout.pass_tables import PassShape
from lora_runner.layout.slot_cache import SlotCache
from lora_runner.optim.flat_buffers import FlatBuffers


class FusedDecoder:
    """The fused forms of a decoder's parts. NotFusedError says what has none.

    Parts are put in place one by one: where one raises, or the whole computes something else, all have to be
    taken out (`remove_fused_parts`).
    """

    def __init__(
        self,
        decoder: nn.Module,
        context: PackContext,
        linears: Sequence[PackedLinear],
        probe: Callable[[], object],
        dtype: torch.dtype,
    ) -> None:
        """`linears` are the trained ones in the order of a seat's segment; `probe` makes one small pass.

        `dtype` is that of the activations.
        """
        devices = {parameter.device for parameter in decoder.parameters()}
        if len(devices) != 1:
            raise NotFusedError("the base is spread over several devices")
        (self.device,) = devices
        self._decoder, self._context = decoder, context
        self._num_layers = len(linears)
        sizes = [linear.in_features + linear.out_features for linear in linears]
        before = dict(enumerate([0, *accumulate(sizes)][:-1]))
        siblings = find_siblings(decoder, context, probe)
        attention = check_attention(probe)
        # After all passes of the general path, in which each member would write the weights of all.
        self.groups = [LinearGroup(members, context, before) for members in siblings]
        self._embedding = _fused_embedding(decoder, context)
        self._parts = {
            "attention": attention,
            "norms": fuse_norms(decoder).describe(),
            "rotary embeddings": fuse_rotary(decoder, context, dtype).describe("queries and keys"),
            "MLPs": fuse_mlps(decoder, dtype).describe(),
        }

    def describe(self) -> dict[str, str]:
        """By part of the model, how it is computed."""
        together = [len(group.members) for group in self.groups]
        return {
            "linear layers": f"{sum(together)} in {len(together)} products of layers with one input",
            **self._parts,
        }

    def key_of(
        self,
        seats: Sequence[SeatWeights | None],
        layout: Layout,
        cache: SlotCache | None,
        *,
        training: bool,
        padded: bool,
    ) -> PassKey:
        """The sizes of a pass over the layout's blocks, one per seat; `padded` to those of its bucket."""
        rows, blocks, sequences = layout.num_rows, len(seats), len(layout.lengths)
        if padded:
            rows, blocks, sequences = padded_rows(rows), padded_count(blocks), padded_count(sequences)
        rank = padded_rank(max([seat.padded_rank for seat in seats if seat is not None], default=0))
        shape = PassShape(rows, blocks, max(1, self._num_layers), rank)
        return PassKey(shape, sequences, training, cache, cache is not None and cache.is_filled)

    def write(self, inputs: PassInputs, seats: Sequence[SeatWeights | None], layout: Layout) -> None:
        """Write a pass over the layout's blocks, one per seat, to `inputs`."""
        training, num_layers = inputs.key.training, inputs.key.tables.num_layers
        inputs.refresh(
            layout, [block_adapter(seat, self.device, num_layers, training=training) for seat in seats]
        )
        if self._embedding is not None:
            self._embedding.write(inputs.embeddings, seats, layout)

    def compute(
        self, inputs: PassInputs, adapters: FlatBuffers | None, embeddings: FlatBuffers | None
    ) -> Tensor:
        """Hidden states (T, h) of all rows; the buffers hold what the seats train, if there are seats."""
        none = torch.zeros(1, device=self.device)
        own_rows = None
        if self._embedding is not None and embeddings is not None:
            own_rows = EmbeddingPass(inputs.embeddings, embeddings.parameters, embeddings.gradients)
        self._context.fused = FusedPass(
            inputs.tables,
            none if adapters is None else adapters.parameters,
            none if adapters is None else adapters.gradients,
            own_rows,
        )
        try:
            with attend_in_sequences(inputs.sequences, inputs.key.cache):
                hidden: Tensor = self._decoder(
                    input_ids=inputs.input_ids,
                    position_ids=inputs.position_ids,
                    attention_mask=inputs.attention_mask,
                )[0]
        finally:
            for group in self.groups:
                group.forget()
        return hidden.flatten(0, 1)


def remove_fused_parts(decoder: nn.Module, context: PackContext) -> None:
    """Let a decoder compute by the general path again, whatever a FusedDecoder has put in place."""
    remove_fused_forwards(decoder)
    leave_rotary(decoder, context)
    for module in decoder.modules():
        if isinstance(module, PackedLinear):
            module.group = None


def _fused_embedding(decoder: nn.Module, context: PackContext) -> FusedEmbedding | None:
    """The fused form of trained input embeddings; None where they are frozen."""
    found = [module for module in decoder.modules() if isinstance(module, PackedEmbedding)]
    if not found:
        return None
    if len(found) > 1:
        raise NotFusedError(f"{found[1].name} is trained beside {found[0].name}")
    try:
        return FusedEmbedding(found[0], context)
    except ValueError as error:
        raise NotFusedError(str(error)) from error
