"""Tests on CUDA: `python -m pytest -m gpu` on a machine that has it."""

from __future__ import annotations

import pytest
import torch

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
