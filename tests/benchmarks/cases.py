"""The smallest quantized model, for the tests of benchmarks."""

from __future__ import annotations

import torch

from benchmarks.training_steps.case import Case
from benchmarks.training_steps.random_llama import Shape

CASE = Case(
    shape=Shape(
        name="tiny",
        hidden=64,
        intermediate=192,
        layers=2,
        heads=4,
        key_value_heads=2,
        vocabulary=320,
        tied=False,
    ),
    num_tokens=48,
    device=torch.device("cpu"),
    dtype=torch.float32,
    rank=8,
)
