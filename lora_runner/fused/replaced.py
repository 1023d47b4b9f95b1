"""What is asked of a part before a kernel takes its place, how that is reported, and how it is undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_runner.errors import is_device_error

MODEL_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
"""What a model's own code raises on inputs that it does not support."""
FEW_ULP = 8
"""Units in the last place by which a kernel may differ from the model's own code, as both round."""


@dataclass(frozen=True)
class Replaced:
    """How many parts of one kind compute by a kernel, and why the others do not."""

    count: int
    reasons: tuple[str, ...]
    """One per cause, with the first part that it concerns."""

    @classmethod
    def of(cls, count: int, left: Iterable[tuple[str, str]]) -> Replaced:
        """`left`: name and reason of each part that stays as it is."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in left:
            by_reason.setdefault(reason, []).append(name)
        return cls(count, tuple(f"{_named(names)}: {reason}" for reason, names in by_reason.items()))

    def describe(self, subject: str | None = None) -> str:
        """One line for the plan and the study; `subject` is what a launch serves, by default a part."""
        found = [f"{subject or self.count} in one launch each way"] if self.count else []
        return "; ".join([*found, *self.reasons]) or "none"


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


class FusedForward:
    """Takes the place of a module's `forward`; deleted there, it leaves the module its own."""


def remove_fused_forwards(model: nn.Module) -> None:
    """Let all parts of `model` compute by their own code again."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), FusedForward):
            del module.forward


def raise_unless_of_model(error: Exception) -> None:
    """Raise an error that says nothing about a model: memory ran out, or the device itself failed."""
    if isinstance(error, torch.OutOfMemoryError) or is_device_error(error):
        raise error


def random_input(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Fresh normal numbers that leave torch's own generators as they are."""
    generator = torch.Generator()
    generator.seed()
    return torch.randn(shape, generator=generator).to(device, dtype)


def is_equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are equal but for rounding in their dtype."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    ulp = torch.finfo(found.dtype).eps
    exact = expected.double()
    allowed = FEW_ULP * ulp * (exact.abs() + exact.square().mean().sqrt())
    return bool(((found.double() - exact).abs() <= allowed).all())
