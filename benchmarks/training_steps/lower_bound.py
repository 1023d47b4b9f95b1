"""The least time of a pack's training step: operations and bytes at the rates measured on this device."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.harness.timing import copy_bandwidth, seconds
from benchmarks.training_steps.case import Case
from benchmarks.update import BYTES_PER_PARAMETER
from lora_runner.memory.sizes import NF4_BYTES
from lora_runner.pack.seat import RANK_MULTIPLE


@dataclass(frozen=True)
class Ceilings:
    """Rates of this device, measured in the same run."""

    copies: float
    """Bytes per second, read and written, of a large copy."""
    products: float
    """Operations per second of a large matrix product in the dtype of the step."""

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> Ceilings:
        side, elements = (8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        a @ b
        times = [seconds(lambda: a @ b, device) for _ in range(9)]
        return cls(copy_bandwidth(device, elements), 2 * side**3 / median(times))


@dataclass(frozen=True)
class LowerBound:
    """The least work of a step; operations are multiplications and additions."""

    frozen: float
    """Operations of the frozen layers' matrix products: outputs and gradients of inputs."""
    lora: float
    attention: float
    """Of real tokens, causal; scores are recomputed in the backward pass."""
    output: float
    """Of the output layer, at predicting positions only."""
    weight_bytes: float
    """The quantized weights, read once per direction."""
    update_bytes: float

    @classmethod
    def of(cls, case: Case, seats: int) -> LowerBound:
        shape = case.shape
        lengths = [len(row) for trial in range(seats) for row in case.sequences(trial)]
        tokens, predicting = sum(lengths), sum(lengths) - len(lengths)
        rank = -(-case.rank // RANK_MULTIPLE) * RANK_MULTIPLE
        frozen = lora = parameters = adapter = 0
        for _, into, out in shape.linear_layers():
            parameters += shape.layers * into * out
            adapter += shape.layers * rank * (into + out)
            frozen += shape.layers * 4 * tokens * into * out
            lora += shape.layers * 6 * tokens * rank * (into + out)
        if not case.train_embeddings:  # then the gradient of the first layer's input is not needed
            for name, into, out in shape.linear_layers():
                if name in ("q", "k", "v"):
                    frozen -= 2 * tokens * into * out
                    lora -= 2 * tokens * rank * into
        matrix = shape.vocabulary * shape.hidden
        trained = matrix * (1 if shape.tied else 2) if case.train_embeddings else 0
        return cls(
            frozen=frozen,
            lora=lora,
            attention=7 * shape.layers * shape.hidden * sum(length**2 for length in lengths),
            output=(6 if case.train_embeddings else 4) * predicting * matrix,
            weight_bytes=2 * NF4_BYTES * parameters,
            update_bytes=BYTES_PER_PARAMETER * seats * (adapter + trained),
        )

    @property
    def operations(self) -> float:
        return self.frozen + self.lora + self.attention + self.output

    def seconds(self, ceilings: Ceilings) -> float:
        """Return the least seconds: products, with weights read meanwhile, then the update."""
        passes = max(self.operations / ceilings.products, self.weight_bytes / ceilings.copies)
        return passes + self.update_bytes / ceilings.copies
