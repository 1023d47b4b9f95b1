"""How much memory a pack needs; from it, how many seats fit and whether the dequantised base stays.

The peak is what the base keeps, what the seats keep, and what lives beside it at the worst moment of a step
or an evaluation. The first two are sums over shapes; the third is counted in a dry run of the pack on the
meta device (`dry_run.py`), for any model. One that cannot run there is estimated from coefficients, which may
be far off; the reason is said. Everything follows from the model's configuration: no weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import psutil
import torch
from transformers import PreTrainedModel

from files_and_text.numbers import plural
from lora_runner.base.host_memory import GAPS, LIBRARY_BYTES
from lora_runner.base.load_model import BaseSpec, meta_model, resolve_dtype
from lora_runner.base.quantization import NONE, Quantization, quantization_of
from lora_runner.base.unquantized_part import unquantized_parameters
from lora_runner.errors import ModelError, first_line
from lora_runner.memory.dry_run import DryRun
from lora_runner.memory.sizes import Coefficients, SeatState, Workload, base_bytes, cache_bytes, seat_state
from lora_runner.pack.options import PackOptions

PLANNED_SHARE = 0.85
"""Share of the device's memory that is planned for; the rest is for what is not foreseen."""
GIB = 2**30


class PassMemory(Protocol):
    """What lives beside all weights and the seats' own state while a pack computes, in bytes."""

    def train(self, seats: int, batch_size: int, length: int) -> int: ...

    def evaluate(self, seats: int, batch_size: int, length: int) -> int: ...


@dataclass(frozen=True)
class ProcessOverhead:
    """What a process takes beside its tensors."""

    libraries: int = 0
    """Bytes of Python and what it has imported."""
    gaps: float = 0.0
    """Bytes that no tensor fills, for each byte of tensors that come and go."""


class MemoryEstimate:
    """Peak memory of a pack by its number of seats, in bytes."""

    def __init__(
        self,
        *,
        base: int,
        seat: SeatState,
        workload: Workload,
        passes: PassMemory,
        device: torch.device,
        available: float,
        source: str,
        beside: ProcessOverhead = ProcessOverhead(),  # frozen
        cache: int = 0,
    ) -> None:
        self.base = base
        """Frozen weights as they are kept, the resident copy included."""
        self.available = available
        self.source = source
        """Where the peak of the passes comes from."""
        self._seat, self._workload, self._passes, self._device = seat, workload, passes, device
        self._beside = beside
        self._most_passing: dict[int, int] = {}
        self._cache = cache

    @property
    def per_seat(self) -> int:
        """What a seat keeps for itself: parameters, gradients and moments."""
        return self._seat.num_bytes

    def total(self, seats: int) -> int:
        """The tensors' peak with `seats` seats."""
        return self.base + seats * self.per_seat + self.passing(seats)

    def passing(self, seats: int) -> int:
        """What comes and goes: the worst of filling the pack, a step, an update and an evaluation."""
        if seats not in self._most_passing:
            work = self._workload
            passing = [
                self._seat.filling(seats),
                self._seat.updating(self._device),
                self._passes.train(seats, work.batch_size, work.length),
            ]
            if work.eval_batch_size:
                passing.append(self._passes.evaluate(seats, work.eval_batch_size, work.eval_length))
            if work.num_prompts:
                prompts = self._passes.evaluate(seats, work.num_prompts, work.prompt_length)
                passing.append(prompts + seats * self._cache)
            self._most_passing[seats] = max(passing)
        return self._most_passing[seats]

    def peak(self, seats: int) -> int:
        """What has to fit: on a CPU the process's resident memory, as `top` shows it; on CUDA the tensors."""
        return self._beside.libraries + self.total(seats) + round(self._beside.gaps * self.passing(seats))

    def parts(self, seats: int) -> str:
        """What the peak consists of where it is a process's, to be added to a sentence."""
        if not self._beside.libraries:
            return ""
        tensors, passing = self.total(seats), self.passing(seats)
        return (
            f"; of the process's {self.peak(seats) / GIB:.3g} GiB, tensors are {tensors / GIB:.3g}, gaps "
            f"between those that come and go {self._beside.gaps * passing / GIB:.3g}, Python and libraries "
            f"{self._beside.libraries / GIB:.3g}"
        )

    def max_seats(self, most: int) -> int:
        """Up to `most` seats that fit into the planned share of the memory; 0 when not even one does."""
        planned = self.available * PLANNED_SHARE
        if self.peak(1) > planned:
            return 0
        fits, too_many, per_seat = 1, most + 1, float("inf")
        while too_many - fits > 1:
            # The peak is nearly a straight line: the line's guess is close, and its neighbours prove it.
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
    """How a pack is to be filled."""

    seats: int
    resident_weights: bool
    """Whether the dequantised base stays in memory: the same numbers in less time."""
    estimate: MemoryEstimate
    """Of this choice."""
    reason: str
    smallest_base: int
    """Bytes of the base without its dequantised copy: less than this no seats and no batch can make it."""
    unquantized: str
    """What of the base stays in the compute dtype, in words."""


def choose_seats(
    spec: BaseSpec, workload: Workload, *, most: int, seats: int | None = None, available: float | None = None
) -> SeatChoice:
    """As many seats as fit, up to `most`, and the dequantised base in memory where it fits beside them.

    `seats` is a number that has been decided already. `available` is in bytes; for a worker of several GPUs
    the sum over them, which assumes that layers, and with them activations and trained weights, spread
    evenly. Trained embeddings and logits lie on one GPU: where they are large, the sum promises too much.

    Seats come first: each is another trial at a time, while the copy only saves the dequantisation. One seat
    is chosen where not even one fits; then the reason says so.
    """
    model = meta_model(spec)
    quantization = quantization_of(model.config, spec.model, spec.quantization)
    unquantized = _unquantised(model, quantization, resolve_dtype(spec.compute_dtype, _device()))
    plain = estimate(spec, workload, available=available)
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
            why = "no more are of use"
        else:
            why = f"{chosen + 1} would take {plain.peak(chosen + 1) / GIB:.3g} GiB, more than {planned}"
    reason = f"{plural(chosen, 'seat')}: {why}"
    best, stays = plain, False
    if quantization:
        resident = estimate(spec, workload, resident_weights=True, available=plain.available)
        stays = resident.peak(chosen) <= resident.available * PLANNED_SHARE
        copy = f"the dequantised base ({(resident.base - plain.base) / GIB:.3g} GiB)"
        if stays:
            best = resident
            reason += f"; {copy} fits beside and stays"
        else:
            reason += f"; {copy} does not fit beside and is made layer by layer in every pass"
    return SeatChoice(
        seats=chosen,
        resident_weights=stays,
        estimate=best,
        reason=f"{reason}{best.parts(chosen)}; {best.source}",
        smallest_base=plain.base,
        unquantized=unquantized,
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _unquantised(model: PreTrainedModel, quantization: Quantization, dtype: torch.dtype) -> str:
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
    spec: BaseSpec, workload: Workload, *, resident_weights: bool = False, available: float | None = None
) -> MemoryEstimate:
    """Estimate a pack's peak from the model's configuration.

    Raises ModelError when the configuration cannot be read or nothing matches `target_modules`.
    """
    model = meta_model(spec)
    device = _device()
    dtype = resolve_dtype(spec.compute_dtype, device)
    quantization = quantization_of(model.config, spec.model, spec.quantization)
    options = workload.options(resident_weights=resident_weights)
    base = base_bytes(model, dtype.itemsize, quantization, resident=resident_weights)
    seat = seat_state(model, workload)
    cache = cache_bytes(model, workload, dtype.itemsize)
    in_passes = NONE if resident_weights else quantization
    coefficients = Coefficients.of(model, workload, dtype, in_passes, device)
    try:
        passes: PassMemory = _dry_run(model, options, workload, device, dtype, quantization)
        source = "peak from a dry run"
    except Exception as error:  # whatever a model's own code does where tensors have no values
        why = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        if quantization and not resident_weights:
            _refuse_if_quantisation_fails(
                spec, options, workload, device, dtype, quantization, error.__cause__ or error
            )
        passes = coefficients
        source = f"peak from coefficients, which may be far off, since a dry run failed: {why}"
    return MemoryEstimate(
        base=base,
        seat=seat,
        workload=workload,
        passes=passes,
        device=device,
        available=available_memory(device) if available is None else available,
        source=source,
        beside=ProcessOverhead(LIBRARY_BYTES, GAPS) if device.type == "cpu" else ProcessOverhead(),
        cache=cache,
    )


def _dry_run(
    model: PreTrainedModel,
    options: PackOptions,
    workload: Workload,
    device: torch.device,
    dtype: torch.dtype,
    quantization: Quantization,
) -> DryRun:
    dry = DryRun(
        model,
        options,
        device=device,
        dtype=dtype,
        quantization=quantization,
        lora_r=workload.lora_r,
        lora_dropout=workload.lora_dropout,
    )
    dry.train(1, 1, 2)
    dry.evaluate(1, 1, 2)
    return dry


def _refuse_if_quantisation_fails(
    spec: BaseSpec,
    options: PackOptions,
    workload: Workload,
    device: torch.device,
    dtype: torch.dtype,
    quantization: Quantization,
    error: BaseException,
) -> None:
    """Raise ModelError where a dry run that failed goes through on weights that are not quantised."""
    try:
        _dry_run(meta_model(spec), options, workload, device, dtype, NONE)
    except Exception:  # then it fails for another reason, which may be the lack of values
        return
    raise ModelError(
        f"model {spec.model!r} cannot be computed {quantization.words}: its own code reads weights that are "
        f"quantised as if they were not ({type(error).__name__}: {first_line(error)})"
    ) from error


def available_memory(device: torch.device) -> float:
    """Bytes a pack may plan with: the GPU's total, or the machine's free memory on CPU."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(psutil.virtual_memory().available)
