"""Small tensors made on the host and copied to the devices of a base without waiting."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """A copy on `device`, through pinned memory, for which the host does not wait."""
    if device.type == "cuda" and host.device.type == "cpu":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


class DeviceCopies:
    """A host tensor and its copies, each made on first use."""

    def __init__(self, host: Tensor) -> None:
        self.host = host
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The tensor on `device`; the host does not wait for the copy."""
        if device not in self._copies:
            self._copies[device] = to_device(self.host, device)
        return self._copies[device]
