"""A seat: one trial's own weights, optimizer, schedule and counters on the shared base.

Weights, gradients and both moments of a parameter group lie flat in one fp32 buffer each, so that clipping
and the update are a handful of launches for any number of matrices. The matrices are views into the buffers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_runner.config import TrialConfig
from lora_runner.packed_modules import PackedLinear, PackedSaved, mix
from lora_runner.schedules import schedule_factor

LORA, EMBEDDINGS = "lora", "embeddings"
"""The two parameter groups; each has its own peak rate, both follow one schedule."""


@dataclass(frozen=True)
class StepStats:
    """What one optimizer step of a seat did."""

    step: int
    """Updates made so far, this one included."""
    loss: float
    """Token-weighted NLL of the step's accumulation window."""
    grad_norm: float
    """Global norm before clipping."""
    learning_rate: float
    num_tokens: int
    """Real (not padded) tokens of the window."""


class FlatGroup:
    """The parameters of one group on one device, as views into one flat fp32 leaf."""

    def __init__(self, shapes: Mapping[str, torch.Size], device: torch.device) -> None:
        size = sum(shape.numel() for shape in shapes.values())
        self.flat = nn.Parameter(torch.zeros(size, dtype=torch.float32, device=device))
        self.flat.grad = torch.zeros_like(self.flat)
        self._places: dict[str, tuple[int, torch.Size]] = {}
        self.views: dict[str, nn.Parameter] = {}
        start = 0
        for name, shape in shapes.items():
            self._places[name] = (start, shape)
            # A leaf of its own that shares the buffer: autograd adds into the flat gradient in place.
            view = nn.Parameter(self.slice_of(self.flat.detach(), name))
            view.grad = self.slice_of(self.flat.grad, name)
            self.views[name] = view
            start += shape.numel()

    def slice_of(self, flat: Tensor, name: str) -> Tensor:
        """The part of a flat buffer that belongs to one parameter, in its shape."""
        start, shape = self._places[name]
        return flat[start : start + shape.numel()].view(shape)


class Seat:
    """One trial on the shared base.

    Raises TrialConfigError when the schedule refuses its arguments.
    """

    def __init__(
        self, config: TrialConfig, linears: Sequence[PackedLinear], saved: Sequence[PackedSaved]
    ) -> None:
        self.config = config
        self.scaling = config.lora_scaling
        self.dropout = config.lora_dropout
        self.seed = config.seed
        self.step = 0
        self.micro_step = 0
        """Micro-batches of which the gradient has been computed; also the data position."""
        self.num_tokens = 0
        self.last_stats: StepStats | None = None
        """What the latest update did; None before the first one of this process."""
        self._window_loss: list[Tensor] = []
        self._window_tokens = 0
        self._factor = schedule_factor(config)
        self._make_parameters(linears, saved)
        rates = {LORA: config.learning_rate, EMBEDDINGS: config.embedding_learning_rate or 0.0}
        self.optimizer = torch.optim.AdamW(
            [{"params": [group.flat], "lr": rates[kind]} for (kind, _), group in self.groups.items()],
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.groups.values():
            # Made now rather than by the first update, which then asks for no memory to speak of: a seat that
            # does not fit is told when it is placed.
            self.optimizer.state[group.flat] = {
                "step": torch.zeros((), device=group.flat.device),
                "exp_avg": torch.zeros_like(group.flat),
                "exp_avg_sq": torch.zeros_like(group.flat),
            }

    def _make_parameters(self, linears: Sequence[PackedLinear], saved: Sequence[PackedSaved]) -> None:
        r = self.config.lora_r
        shapes: dict[tuple[str, torch.device], dict[str, torch.Size]] = {}
        for linear in linears:
            here = shapes.setdefault((LORA, linear.weight.device), {})
            here[f"{linear.name}.lora_A"] = torch.Size((r, linear.in_features))
            here[f"{linear.name}.lora_B"] = torch.Size((linear.out_features, r))
        for module in saved:
            if module.tied_to is None:
                here = shapes.setdefault((EMBEDDINGS, module.weight.device), {})
                here[f"{module.name}.weight"] = module.weight.shape
        self.groups = {key: FlatGroup(names, key[1]) for key, names in shapes.items()}
        self.parameters: dict[str, nn.Parameter] = {
            name: view for group in self.groups.values() for name, view in group.views.items()
        }
        self.lora: dict[str, tuple[Tensor, Tensor]] = {
            linear.name: (self.parameters[f"{linear.name}.lora_A"], self.parameters[f"{linear.name}.lora_B"])
            for linear in linears
        }
        self.saved: dict[str, Tensor] = {
            m.name: self.parameters[f"{m.name}.weight"] for m in saved if m.tied_to is None
        }
        with torch.no_grad():
            for place, linear in enumerate(linears):
                # peft's default: A uniform as nn.Linear's own init, B zero, so the seat starts as the base.
                generator = torch.Generator().manual_seed(mix(self.seed, place))
                bound = 1 / math.sqrt(linear.in_features)
                init = torch.empty(r, linear.in_features).uniform_(-bound, bound, generator=generator)
                self.lora[linear.name][0].copy_(init)
            for module in saved:
                if module.tied_to is None:
                    self.saved[module.name].copy_(module.weight)

    @property
    def learning_rate(self) -> float:
        """Rate of the LoRA group in the next update."""
        return self.config.learning_rate * self._factor(self.step)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.max_steps

    @property
    def num_trained(self) -> int:
        return sum(group.flat.numel() for group in self.groups.values())

    def add_micro_batch(self, loss: Tensor, num_tokens: int) -> None:
        """Count a micro-batch whose gradient has been added; `loss` is its share of the window's mean."""
        self._window_loss.append(loss.detach())
        self._window_tokens += num_tokens
        self.micro_step += 1

    @property
    def window_is_full(self) -> bool:
        return len(self._window_loss) == self.config.gradient_accumulation_steps

    def restart_window(self) -> None:
        """Forget the gradient of a window that was cut short; its micro-batches are computed again."""
        self.micro_step -= len(self._window_loss)
        self._clear_window()

    def update(self) -> StepStats:
        """Clip this trial's gradient, step both groups, and start a new accumulation window."""
        loss = float(torch.stack(self._window_loss).sum())
        norm = self._clip()
        factor = self._factor(self.step)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
        self.optimizer.step()
        self.step += 1
        self.num_tokens += self._window_tokens
        rate = self.config.learning_rate * factor
        self.last_stats = StepStats(self.step, loss, norm, rate, self._window_tokens)
        self._clear_window()
        return self.last_stats

    def _clip(self) -> float:
        grads = [group.flat.grad for group in self.groups.values() if group.flat.grad is not None]
        home = grads[0].device
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g).to(home) for g in grads]))
        if self.config.max_grad_norm > 0:
            # Same rule and epsilon as torch.nn.utils.clip_grad_norm_.
            scale = torch.clamp(self.config.max_grad_norm / (norm + 1e-6), max=1.0)
            for grad in grads:
                grad.mul_(scale.to(grad.device))
        return float(norm)

    def _clear_window(self) -> None:
        self._window_loss, self._window_tokens = [], 0
        for group in self.groups.values():
            if group.flat.grad is not None:
                group.flat.grad.zero_()

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor a checkpoint needs, by name: parameters and both moments, as live views."""
        for group in self.groups.values():
            state = self.optimizer.state[group.flat]
            for name, view in group.views.items():
                yield f"parameter.{name}", view.detach()
                for moment in ("exp_avg", "exp_avg_sq"):
                    yield f"{moment}.{name}", group.slice_of(state[moment], name)

    def load_state(
        self, tensors: Mapping[str, Tensor], *, step: int, micro_step: int, num_tokens: int
    ) -> None:
        """Continue from what `state_tensors` gave.

        Nothing is taken over unless everything fits: ValueError names the tensor that is missing, of another
        shape, or not of this seat.
        """
        targets = dict(self.state_tensors())
        if strangers := sorted(set(targets) ^ set(tensors)):
            raise ValueError(f"{strangers[0]} is missing or does not belong to this seat")
        for name, target in targets.items():
            if tensors[name].shape != target.shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(target.shape)}"
                )
        for name, target in targets.items():
            target.copy_(tensors[name])
        for group in self.groups.values():
            self.optimizer.state[group.flat]["step"].fill_(step)
        self.step, self.micro_step, self.num_tokens = step, micro_step, num_tokens
