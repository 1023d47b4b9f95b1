"""Optimizer states in 8 bits against those in fp32."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import bitsandbytes.optim
import pytest
import torch
from torch import Tensor

from lora_runner.errors import ModelError
from lora_runner.optim import adamw_8bit as states_8bit
from lora_runner.optim.adamw import clip_and_step, squared_norms
from lora_runner.optim.adamw_8bit import States8bit
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import GroupStep
from tests.lora_runner.devices import no_cuda

SIZE = 64 * BLOCK
RATE = 1e-3


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_cuda])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def step_of(number: int, max_grad_norm: float = 1.0) -> GroupStep:
    return GroupStep(
        trial=0,
        start=0,
        stop=SIZE,
        learning_rate=RATE,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
        max_grad_norm=max_grad_norm,
        step=number,
    )


def gradients_of(number: int, device: torch.device) -> Tensor:
    """A constant direction, noise of the same size, and padding in the last block."""
    stays = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(1 + number))
    made = (stays + noise) * 0.01
    made[-BLOCK:] = 0.0
    return made.to(device)


def start_on(device: torch.device) -> Tensor:
    made = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)) * 0.02
    made[-BLOCK:] = 0.0
    return made.to(device)


def test_8bit_states_stay_close_to_fp32(device: torch.device) -> None:
    """The bounds of the class's docstring; the norm is 3.6, so clipping counts."""
    states, parameters = States8bit(SIZE, device), start_on(device)
    start = parameters.clone()
    exact = FlatBuffers(
        start.clone(), torch.zeros_like(start), torch.zeros_like(start), torch.zeros_like(start)
    )
    for number in range(1, 21):
        exact.gradients.copy_(gradients_of(number, device))
        norms = squared_norms(exact, [step_of(number)], 1).sqrt()
        clip_and_step(exact, [step_of(number)], norms)
        states.clip_and_step(parameters, gradients_of(number, device), step_of(number), norms[0])
        if number == 1:  # nothing has been rounded to 8 bits yet
            assert (parameters - exact.parameters).abs().max() < 1e-7
    moved = torch.linalg.vector_norm(exact.parameters - start)
    difference = parameters - exact.parameters
    assert 0 < torch.linalg.vector_norm(difference) < 0.02 * moved
    assert difference.abs().max() < 2 * RATE
    assert not parameters[-BLOCK:].any(), "padding"


def test_the_update_is_that_of_bitsandbytes_own_optimizer(device: torch.device) -> None:
    states, parameters = States8bit(SIZE, device), start_on(device)
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = bitsandbytes.optim.AdamW8bit([theirs], lr=RATE, weight_decay=0.01)
    for number in range(1, 6):
        theirs.grad = gradients_of(number, device)
        optimizer.step()
        norm = torch.ones((), device=device)
        states.clip_and_step(parameters, gradients_of(number, device), step_of(number, 0.0), norm)
    assert torch.equal(parameters, theirs.detach())


def test_states_take_2_bytes_per_element(device: torch.device) -> None:
    tensors = States8bit(SIZE, device).state_tensors().values()
    assert sum(t.numel() * t.element_size() for t in tensors) == SIZE * (2 + 8 / 256)


@pytest.mark.parametrize(("max_grad_norm", "scale"), [(0.0, 1.0), (8.0, 1.0), (1.0, 0.25)])
def test_gradients_are_clipped_by_the_norm_that_is_given(
    device: torch.device, max_grad_norm: float, scale: float
) -> None:
    gradients = gradients_of(1, device)
    norm = torch.tensor(4.0, device=device)
    States8bit(SIZE, device).clip_and_step(start_on(device), gradients, step_of(1, max_grad_norm), norm)
    torch.testing.assert_close(gradients, gradients_of(1, device) * scale, rtol=1e-6, atol=0.0)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(device: torch.device) -> None:
    states, parameters = States8bit(SIZE, device), start_on(device)
    norm = torch.ones((), device=device)
    for number in (1, 2):
        states.clip_and_step(parameters, gradients_of(number, device), step_of(number), norm)
    kept, kept_parameters = States8bit(SIZE, device), parameters.clone()
    for name, tensor in kept.state_tensors().items():
        tensor.copy_(states.state_tensors()[name])
    states.clip_and_step(parameters, gradients_of(3, device), step_of(3), norm)
    kept.clip_and_step(kept_parameters, gradients_of(3, device), step_of(3), norm)
    assert torch.equal(parameters, kept_parameters)
    for name, tensor in states.state_tensors().items():
        assert torch.equal(tensor, kept.state_tensors()[name]), name


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for chunk in (2**24, 3 * 256):
        monkeypatch.setattr(states_8bit, "CHUNK", chunk)
        states, parameters = States8bit(SIZE, torch.device("cpu")), start_on(torch.device("cpu"))
        for number in (1, 2):
            states.clip_and_step(
                parameters, gradients_of(number, parameters.device), step_of(number), torch.ones(())
            )
        found.append(parameters)
    torch.testing.assert_close(*found, rtol=0.0, atol=1e-8)


def test_a_device_without_a_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("All input tensors need to be on the same GPU")

    monkeypatch.setattr(bnb, "optimizer_update_8bit_blockwise", refuse)
    states_8bit._require_kernel.cache_clear()
    with pytest.raises(ModelError, match="need a device that bitsandbytes has a kernel for, not cpu"):
        States8bit(SIZE, torch.device("cpu"))


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="multiples of 256 elements, got 255"):
        States8bit(255, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"have 256 elements, got \(65536,\) and \(65536,\)"):
        States8bit(256, torch.device("cpu")).clip_and_step(
            start_on(torch.device("cpu")), start_on(torch.device("cpu")), step_of(1), torch.ones(())
        )
