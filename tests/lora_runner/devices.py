"""Where a base is loaded, and what needs CUDA. `pytest -m gpu` is for a machine that has it."""

from __future__ import annotations

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
