"""AdamW with moments in 8 bits for one segment, for trained embeddings that would not fit otherwise.

The moments are bitsandbytes' blockwise dynamic 8 bit (Dettmers et al. 2022, arXiv 2110.02861): 256 elements
share one fp32 scale. Parameters and gradients stay fp32: a trained parameter takes 10.03 bytes instead of 16.
"""

from __future__ import annotations

from functools import lru_cache

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from lora_runner.errors import ModelError
from lora_runner.optim.adamw import clip
from lora_runner.optim.group_step import GroupStep

ABSMAX_BLOCK = 256
"""Elements that share a scale; fixed in bitsandbytes' optimizer kernels."""
CHUNK = 2**24
"""Elements per call: bitsandbytes counts in 32 bits, and on a CPU it holds fp32 copies of both moments."""


class States8bit:
    """Both moments of one flat fp32 parameter segment, in 8 bits: 2.03 bytes per element instead of 8.

    The result is close to AdamW with fp32 states, not equal. After 20 steps from equal weights, with
    gradients that are half noise, the two differ by 1.4% of the distance moved (norms), a single weight by up
    to 1.0 learning rates: measured with bitsandbytes 0.50.2 on a CPU; `test_8bit_states_stay_close_to_fp32`
    holds each device to 2% and 2.0. bitsandbytes advises 32-bit states for embeddings
    (`bitsandbytes.nn.StableEmbedding`), so use these only where memory demands it.

    Runs on CUDA and, with bitsandbytes 0.50.2, on a CPU. ModelError: bitsandbytes has no kernel for the
    device. ValueError: `num_elements` is not a multiple of 256.
    """

    def __init__(self, num_elements: int, device: torch.device) -> None:
        if num_elements % ABSMAX_BLOCK or num_elements <= 0:
            raise ValueError(f"8-bit states cover multiples of {ABSMAX_BLOCK} elements, got {num_elements}")
        _require_kernel(device)
        self._signed = bnb.create_dynamic_map(signed=True).to(device)  # (256,) fp32, the value of each code
        self._unsigned = bnb.create_dynamic_map(signed=False).to(device)
        num_scales = num_elements // ABSMAX_BLOCK
        # Any code is 0 with a scale of 0.
        self._tensors = {
            "exp_avg": torch.zeros(num_elements, dtype=torch.uint8, device=device),
            "exp_avg_absmax": torch.zeros(num_scales, device=device),
            "exp_avg_sq": torch.zeros(num_elements, dtype=torch.uint8, device=device),
            "exp_avg_sq_absmax": torch.zeros(num_scales, device=device),
        }

    @torch.no_grad()
    def clip_and_step(self, parameters: Tensor, gradients: Tensor, group: GroupStep, norm: Tensor) -> None:
        """Clip the segment's gradient, in place, and apply AdamW, as `adamw.clip_and_step` does.

        parameters, gradients: (num_elements,) fp32, the segment itself. group: its hyperparameters; start and
        stop are not used. norm: () fp32, the trial's over all devices. The host does not wait for the device.
        """
        states = self._tensors
        size = states["exp_avg"].numel()
        if parameters.shape != (size,) or gradients.shape != (size,):
            shapes = f"{tuple(parameters.shape)} and {tuple(gradients.shape)}"
            raise ValueError(f"parameters and gradients of these states have {size} elements, got {shapes}")
        # Not bitsandbytes' gnorm_scale: a Python number, for which the host would have to wait.
        clip(gradients, group, norm.to(gradients.device, non_blocking=True))
        for start in range(0, size, CHUNK):
            here = slice(start, start + CHUNK)
            scales = slice(start // ABSMAX_BLOCK, (start + CHUNK) // ABSMAX_BLOCK)
            bnb.optimizer_update_8bit_blockwise(
                "adam",  # bitsandbytes' AdamW too: its decay is decoupled
                gradients[here],
                parameters[here],
                states["exp_avg"][here],
                states["exp_avg_sq"][here],
                group.beta1,
                group.beta2,
                0.0,
                0.0,
                group.epsilon,
                group.step,
                group.learning_rate,
                self._signed,
                self._unsigned,
                states["exp_avg_absmax"][scales],
                states["exp_avg_sq_absmax"][scales],
                weight_decay=group.weight_decay,
            )

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor a checkpoint needs, by name, as live views."""
        return dict(self._tensors)


@lru_cache
def _require_kernel(device: torch.device) -> None:
    """Try one block: older versions refuse a CPU with a bare RuntimeError."""
    if device.type == "cuda":
        return
    codes = torch.zeros(2, ABSMAX_BLOCK, dtype=torch.uint8, device=device)
    values = torch.zeros(2, ABSMAX_BLOCK, device=device)
    scales = torch.zeros(2, 1, device=device)
    maps = bnb.create_dynamic_map().to(device)
    betas, rest = (0.9, 0.999, 0.0), (0.0, 1e-8, 1, 0.0)
    try:
        bnb.optimizer_update_8bit_blockwise("adam", *values, *codes, *betas, *rest, maps, maps, *scales)
    except RuntimeError as error:
        raise ModelError(
            f"8-bit optimizer states need a device that bitsandbytes has a kernel for, not {device}"
        ) from error
