"""Small tables made on the host and wanted on each device that a base is spread over."""

from __future__ import annotations

import torch
from torch import Tensor


class OnDevices:
    """A host tensor and its copies, each made when first asked for."""

    def __init__(self, host: Tensor) -> None:
        self.host = host
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The tensor on `device`; the host does not wait for the copy."""
        if device not in self._copies:
            self._copies[device] = self.host.to(device, non_blocking=True)
        return self._copies[device]
