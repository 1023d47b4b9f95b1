"""How much memory a pack needs, how many seats fit, and whether the dequantized base stays in memory.

The peak is the base, the seats' own state, and the transient tensors at the worst moment of a step or an
evaluation. The first two are sums over shapes (`sizes.py`); the third is counted in a dry run of the pack on
the meta device (`dry_run.py`). A model that cannot run there is estimated from coefficients, which may be far
off; the estimate gives the reason. Only the model's configuration is read, no weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from transformers import PreTrainedModel

from files_and_text.numbers import plural
from lora_runner.base.host_memory import GAPS, LIBRARY_BYTES
from lora_runner.base.load_model import BaseSpec, meta_model
from lora_runner.base.quantization import NONE, Quantization, quantization_of
from lora_runner.base.unquantized_part import unquantized_parameters
from lora_runner.errors import ModelError, first_line
from lora_runner.fused.compute_path import ComputePath, Machine
from lora_runner.memory.dry_run import DryRun
from lora_runner.memory.planned_device import PlannedDevice
from lora_runner.memory.sizes import (
    CapturedBytes,
    Coefficients,
    SeatState,
    Workload,
    base_bytes,
    cache_bytes,
    seat_state,
)

PLANNED_SHARE = 0.85
"""Share of the device's memory that is planned for; the rest is a reserve."""
GIB = 2**30


class PassMemory(Protocol):
    """Bytes of transient tensors while a pack computes, beside all weights and the seats' own state."""

    def train(self, seats: int, batch_size: int, length: int) -> int: ...

    def captured(self, seats: int, batch_size: int, length: int) -> CapturedBytes: ...

    def evaluate(self, seats: int, batch_size: int, length: int) -> int: ...


@dataclass(kw_only=True)
class MemoryEstimate:
    """Peak memory of a pack by its number of seats, in bytes."""

    base: int
    """Frozen weights as stored, with the resident copy if there is one."""
    seat: SeatState
    workload: Workload
    passes: PassMemory
    device: torch.device
    available: float
    source: str
    """How the transient tensors were counted."""
    cache: int = 0
    """Bytes of each seat's keys and values, while it generates."""
    libraries: int = 0
    """Bytes of Python and imported libraries in the process; 0 on CUDA, where only tensors count."""
    gaps: float = 0.0
    """Bytes lost between transient tensors, per byte of them."""
    captures: bool = False
    """Whether passes are captured as CUDA graphs, whose memory stays reserved."""
    path: ComputePath | None = None
    """Of the pack that ran without memory; None where none did."""
    _transient: dict[int, int] = field(default_factory=dict, init=False)
    _reserved: dict[int, int] = field(default_factory=dict, init=False)

    @property
    def per_seat(self) -> int:
        """A seat's own state: parameters, gradients and moments."""
        return self.seat.num_bytes

    def total(self, seats: int) -> int:
        """The tensors' peak with `seats` seats."""
        return self.base + seats * self.per_seat + self.transient(seats)

    def transient(self, seats: int) -> int:
        """Transient tensors: the most in filling the pack, a step, an update or an evaluation."""
        if seats not in self._transient:
            work = self.workload
            training = self.passes.train(seats, work.batch_size, work.length)
            reserved = 0
            if self.captures:
                captured = self.passes.captured(seats, work.batch_size, work.length)
                reserved, training = captured.reserved, captured.beside
            phases = [training, self.seat.updating(self.device)]
            if work.eval_batch_size:
                phases.append(self.passes.evaluate(seats, work.eval_batch_size, work.eval_length))
            if work.num_prompts:
                prompts = self.passes.evaluate(seats, work.num_prompts, work.prompt_length)
                phases.append(prompts + seats * self.cache)
            # Seats for which buffers grow come before anything is captured, or captured passes are dropped.
            self._transient[seats] = max(self.seat.filling(seats), reserved + max(phases))
            self._reserved[seats] = reserved
        return self._transient[seats]

    def reserved(self, seats: int) -> int:
        """Transient tensors whose memory stays reserved between steps, for captured passes."""
        self.transient(seats)
        return self._reserved[seats]

    def peak(self, seats: int) -> int:
        """What must fit: on a CPU the process's resident memory, as `top` shows it; on CUDA the tensors."""
        return self.libraries + self.total(seats) + round(self.gaps * self.transient(seats))

    def breakdown(self, seats: int) -> str:
        """The parts of the peak that a user cannot see, to be appended to a sentence; may be empty."""
        if reserved := self.reserved(seats):
            return (
                f"; {reserved / GIB:.3g} GiB stay reserved for captured passes, which graphs: false would "
                "give back between steps"
            )
        if not self.libraries:
            return ""
        tensors, transient = self.total(seats), self.transient(seats)
        return (
            f"; of the process's {self.peak(seats) / GIB:.3g} GiB, {tensors / GIB:.3g} are tensors, "
            f"{self.gaps * transient / GIB:.3g} are gaps between temporary tensors, and "
            f"{self.libraries / GIB:.3g} are Python and libraries"
        )

    def max_seats(self, most: int) -> int:
        """Up to `most` seats that fit into the planned share of the memory; 0 when not even one does."""
        planned = self.available * PLANNED_SHARE
        if self.peak(1) > planned:
            return 0
        fits, too_many, per_seat = 1, most + 1, float("inf")
        while too_many - fits > 1:
            # The peak is nearly linear in seats, so a linear guess is close.
            guess = fits + int((planned - self.peak(fits)) / per_seat)
            guess = min(max(guess, fits + 1), too_many - 1)
            if self.peak(guess) <= planned:
                fits = guess
            else:
                too_many = guess
            per_seat = max(1.0, (self.peak(guess) - self.peak(1)) / (guess - 1))
        return fits


@dataclass(frozen=True)
class SeatChoice:
    """How many seats a pack gets, and whether the dequantized base stays in memory."""

    seats: int
    resident_weights: bool
    """Keep the dequantized base in memory: the same numbers in less time."""
    estimate: MemoryEstimate
    """The memory that this choice takes."""
    reason: str
    smallest_base: int
    """Bytes of the base without its dequantized copy, a lower bound for any pack."""
    unquantized: str
    """What of the base stays in the compute dtype, as text."""


def choose_seats(
    spec: BaseSpec,
    workload: Workload,
    *,
    most: int,
    seats: int | None = None,
    available: float | None = None,
    on: PlannedDevice | None = None,
) -> SeatChoice:
    """As many seats as fit, up to `most`, and the dequantized base in memory if it fits beside them.

    `seats` is a number chosen by the user. `on`: the device, by default this machine's. `available` is in
    bytes; for a worker with several GPUs it is their sum, which assumes that layers, activations and trained
    weights spread evenly. Trained embeddings and logits are on one GPU: where they are large, the sum is too
    optimistic.

    Seats come first: each is another trial at a time, while the copy only saves time. One seat is chosen
    where not even one fits; the reason then says so.
    """
    on = on or PlannedDevice.here()
    model = meta_model(spec)
    quantization = quantization_of(model.config, spec.model, spec.quantization)
    unquantized = _unquantized(model, quantization, on.dtype(spec.compute_dtype))
    plain = estimate(spec, workload, available=available, on=on)
    planned = f"{PLANNED_SHARE:.0%} of {plain.available / GIB:.3g} GiB"
    if seats is not None:
        chosen, why = seats, "as asked"
    else:
        chosen = max(1, plain.max_seats(most))
        if plain.peak(chosen) > plain.available * PLANNED_SHARE:
            why = f"even one does not fit into {planned}"
            if plain.base > plain.available * PLANNED_SHARE:
                why += f": the base alone takes {plain.base / GIB:.3g} GiB"
        elif chosen == most:
            why = "more would not be used"
        else:
            why = f"{chosen + 1} would take {plain.peak(chosen + 1) / GIB:.3g} GiB, more than {planned}"
    reason = f"{plural(chosen, 'seat')}: {why}"
    best, stays = plain, False
    if quantization:
        resident = estimate(spec, replace(workload, resident_weights=True), available=plain.available, on=on)
        stays = resident.peak(chosen) <= resident.available * PLANNED_SHARE
        copy = f"the dequantized base ({(resident.base - plain.base) / GIB:.3g} GiB)"
        if stays:
            best = resident
            reason += f"; {copy} fits beside them and stays in memory, at no cost in seats"
        else:
            fewer = plural(resident.max_seats(chosen), "seat")
            reason += f"; {copy} does not fit beside them and is made layer by layer in every pass"
            reason += f" (with it in memory {fewer} would fit)"
    return SeatChoice(
        seats=chosen,
        resident_weights=stays,
        estimate=best,
        reason=f"{reason}{best.breakdown(chosen)}; {best.source}",
        smallest_base=plain.base,
        unquantized=unquantized,
    )


def _unquantized(model: PreTrainedModel, quantization: Quantization, dtype: torch.dtype) -> str:
    parts = {name: n * dtype.itemsize for name, n in unquantized_parameters(model, quantization).items()}
    each = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    name = str(dtype).removeprefix("torch.")
    return f"{_size(sum(parts.values()))} of it stay in {name}: {each}"


def _size(num_bytes: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20)):
        if num_bytes >= size / 10:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes / 2**10:.3g} KiB"


def estimate(
    spec: BaseSpec,
    workload: Workload,
    *,
    available: float | None = None,
    machine: Machine | None = None,
    on: PlannedDevice | None = None,
) -> MemoryEstimate:
    """Estimate a pack's peak from the model's configuration; `on` and `machine` are by default this machine.

    Raises ModelError when the configuration cannot be read or nothing matches `target_modules`.
    """
    model = meta_model(spec)
    on = on or PlannedDevice.here()
    device, dtype = on.torch_device, on.dtype(spec.compute_dtype)
    quantization = quantization_of(model.config, spec.model, spec.quantization)
    base = base_bytes(model, dtype.itemsize, quantization, resident=workload.resident_weights)
    seat = seat_state(model, workload)
    cache = cache_bytes(model, workload, dtype.itemsize)
    in_passes = NONE if workload.resident_weights else quantization
    passes: PassMemory = Coefficients.of(model, workload, dtype, in_passes, device)
    machine = machine or on.machine(dtype)
    captures = False
    path = None

    def dry_run(model: PreTrainedModel, quantization: Quantization) -> DryRun:
        dry = DryRun(
            model,
            workload,
            device=device,
            dtype=dtype,
            quantization=quantization,
            machine=machine,
            is_here=on.is_here,
        )
        dry.train(1, 1, 2)
        dry.evaluate(1, 1, 2)
        return dry

    try:
        passes = dry = dry_run(model, quantization)
        captures, path = dry.captures, dry.path
        source = "peak from a dry run"
    except Exception as error:  # anything that a model's code does with tensors without values
        if in_passes and _succeeds(lambda: dry_run(meta_model(spec), NONE)):
            cause = error.__cause__ or error
            raise ModelError(
                f"model {spec.model!r} does not run {quantization.description}: its own code reads quantized "
                f"weights as if they were not ({type(cause).__name__}: {first_line(cause)})"
            ) from cause
        why = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        source = f"peak from coefficients, which may be far off, since a dry run failed: {why}"
    on_cpu = device.type == "cpu"
    return MemoryEstimate(
        base=base,
        seat=seat,
        workload=workload,
        passes=passes,
        device=device,
        available=on.memory if available is None else available,
        source=source,
        cache=cache,
        libraries=LIBRARY_BYTES if on_cpu else 0,
        gaps=GAPS if on_cpu else 0.0,
        captures=captures,
        path=path,
    )


def _succeeds(run: Callable[[], object]) -> bool:
    """Whether nothing is raised: then quantized weights are to blame for an error, not missing values."""
    try:
        run()
    except Exception:
        return False
    return True
