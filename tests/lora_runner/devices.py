"""The device of a base, and the mark of tests that need CUDA (`pytest -m gpu`)."""

from __future__ import annotations

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
