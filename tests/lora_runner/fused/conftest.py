"""Tests of packs on the fused path run where kernels do: see `tests/lora_runner/kernels/conftest.py`."""

from __future__ import annotations

import pytest

from tests.lora_runner.kernels.interpreter import OF_MODELS, select


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    select(config, items, OF_MODELS)
