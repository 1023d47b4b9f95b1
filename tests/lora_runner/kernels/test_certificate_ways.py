"""The fused path's ways pass the checks of a certificate on small layers."""

from __future__ import annotations

import random

import pytest
import torch

from lora_runner.certificate.checks.invariance import Plan, check_case
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.case import Setting
from lora_runner.certificate.ways.registry import FUSED, WAYS, Way
from tests.lora_runner.kernels.interpreter import DEVICE, DOT_DTYPES

SIZES = ModelSizes.of_llama(
    "a tiny Llama", hidden=64, intermediate=64, heads=4, key_value_heads=2, vocabulary=64
)
PLAN = Plan((3,), (20,))


@pytest.mark.parametrize("way", [way for way in WAYS if way.name == FUSED], ids=lambda way: way.kind)
def test_a_fused_way_is_invariant_and_right(way: Way, seed: int) -> None:
    dtype = torch.bfloat16 if way.kind == "products" else DOT_DTYPES[0]
    setting = Setting(DEVICE, dtype, SIZES, torch.Generator(DEVICE).manual_seed(seed))
    for case in way.cases(setting):
        outcome = check_case(case, PLAN, random.Random(seed), lambda: None)
        assert outcome.difference is None, case.name
        assert outcome.comparisons == 4, case.name
