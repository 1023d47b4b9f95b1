"""Clipping and AdamW of a whole pack, beside one optimizer per trial from torch and bitsandbytes.

All contenders update the same matrices: views into one flat buffer, so that only moments exist per contender.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.report import Report, arguments
from lora_runner.arena import BLOCK, FlatBuffers
from lora_runner.update import GroupStep, clip_and_step, squared_norms

RANK = 16
MAX_GRAD_NORM = 1.0
FIXED = {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
BYTES_PER_PARAMETER = 32
"""What ours must move on CUDA: the gradient for the norm, then 4 buffers read and 3 written."""
BYTES_HELD = 8 + 4 * 8 + 2
"""Per parameter with all contenders at hand: itself, gradient, moments four times in fp32, once in 8 bits."""
AT_ONCE_SECONDS = 0.05
OURS, FUSED, FOREACH = "pack", "torch fused", "torch foreach"
RATIOS = {
    FUSED: "fused_adamw",
    FOREACH: "foreach_adamw",
    "bnb 32-bit": "bitsandbytes_32bit",
    "bnb 8-bit": "bitsandbytes_8bit",
}


@dataclass(frozen=True, kw_only=True)
class Llama:
    name: str
    suffix: str
    """Of this model's figures; empty for the one that is compared across machines."""
    hidden: int
    intermediate: int
    key_value: int
    layers: int

    def shapes(self) -> Iterator[tuple[int, int]]:
        """The LoRA matrices on every linear layer."""
        for _ in range(self.layers):
            for inside, outside in (
                (self.hidden, self.hidden),
                (self.hidden, self.key_value),
                (self.hidden, self.key_value),
                (self.hidden, self.hidden),
                (self.hidden, self.intermediate),
                (self.hidden, self.intermediate),
                (self.intermediate, self.hidden),
            ):
                yield RANK, inside
                yield outside, RANK


SMALL = Llama(name="hidden 256 x 4", suffix="_small", hidden=256, intermediate=688, key_value=128, layers=4)
LLAMA_1B = Llama(name="Llama-3.2-1B", suffix="", hidden=2048, intermediate=8192, key_value=512, layers=16)
LLAMA_8B = Llama(
    name="Llama-3.1-8B", suffix="_8b", hidden=4096, intermediate=14336, key_value=1024, layers=32
)


class Pack:
    """`num_trials` adapters in flat buffers, and every contender's way to update them."""

    def __init__(self, llama: Llama, num_trials: int, device: torch.device) -> None:
        shapes = list(llama.shapes())
        used = sum(a * b for a, b in shapes)
        self.size = -(-used // BLOCK) * BLOCK
        total = num_trials * self.size
        parameters, gradients, *moments = (torch.zeros(total, device=device) for _ in range(4))
        parameters.normal_(std=0.02)
        self.gradients = gradients.normal_(std=1e-3)
        self.buffers = FlatBuffers(parameters, gradients, *moments)
        self.num_trials, self.step = num_trials, 0
        self.trials: list[list[nn.Parameter]] = []
        for trial in range(num_trials):
            start, mine = trial * self.size, []
            for a, b in shapes:
                here = slice(start, start + a * b)
                mine.append(nn.Parameter(parameters[here].view(a, b)))
                mine[-1].grad = gradients[here].view(a, b)
                start += a * b
            self.trials.append(mine)

    def update(self) -> None:
        self.step += 1
        groups = [
            GroupStep(
                trial=trial,
                start=trial * self.size,
                stop=(trial + 1) * self.size,
                learning_rate=2e-4,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8,
                weight_decay=0.01,
                max_grad_norm=MAX_GRAD_NORM,
                step=self.step,
            )
            for trial in range(self.num_trials)
        ]
        norms = squared_norms(self.buffers, groups, self.num_trials).sqrt()
        clip_and_step(self.buffers, groups, norms)

    def one_by_one(
        self, optimizer: Callable[..., torch.optim.Optimizer], **options: Any
    ) -> Callable[[], None]:
        """An optimizer per trial, each after torch's own clipping."""
        optimizers = [optimizer(parameters, **FIXED, **options) for parameters in self.trials]

        def update() -> None:
            for parameters, made in zip(self.trials, optimizers, strict=True):
                nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
                made.step()

        return update


def contenders(pack: Pack) -> dict[str, Callable[[], None]]:
    """By name; bitsandbytes only where it is installed."""
    made = {OURS: pack.update}
    made[FUSED] = pack.one_by_one(torch.optim.AdamW, fused=True)
    made[FOREACH] = pack.one_by_one(torch.optim.AdamW, foreach=True)
    if find_spec("bitsandbytes") is not None:
        from bitsandbytes.optim import AdamW, AdamW8bit

        made["bnb 32-bit"] = pack.one_by_one(AdamW)
        made["bnb 8-bit"] = pack.one_by_one(AdamW8bit)
    return made


def seconds(
    made: dict[str, Callable[[], None]], device: torch.device, repetitions: int, report: Report
) -> dict[str, float]:
    """Median of each contender, their repetitions interleaved; one that cannot run here is noted instead."""
    updates: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    for name, update in made.items():
        try:
            update()
            updates[name] = _at_once(update, device)
        except (RuntimeError, NotImplementedError) as error:
            text = f"{name} does not run on {device.type}: {str(error).splitlines()[0]}"
            if text not in report.notes:
                report.note(text)
        else:
            times[name] = []
    for _ in range(repetitions):
        for name in times:
            _wait(device)
            start = time.perf_counter()
            for _ in range(updates[name]):
                made[name]()
            _wait(device)
            times[name].append((time.perf_counter() - start) / updates[name])
    return {name: median(found) for name, found in times.items()}


def _at_once(update: Callable[[], Any], device: torch.device) -> int:
    """Calls of one repetition: on CUDA the host runs ahead of the device, as it does in training.

    Ten of what is fast; of what takes long, as many as last AT_ONCE_SECONDS, for a device may be lent by the
    minute.
    """
    if device.type != "cuda":
        update()
        return 1
    _wait(device)
    start = time.perf_counter()
    update()
    _wait(device)
    return min(10, max(1, round(AT_ONCE_SECONDS / (time.perf_counter() - start))))


def copy_bandwidth(device: torch.device, num_elements: int) -> float:
    """Bytes read and written per second by torch's copy of a buffer of that many fp32 elements."""
    source = torch.zeros(num_elements, device=device)
    target = torch.empty_like(source)
    times, copies = [], _at_once(lambda: target.copy_(source), device)
    for _ in range(12):
        _wait(device)
        start = time.perf_counter()
        for _ in range(copies):
            target.copy_(source)
        _wait(device)
        times.append((time.perf_counter() - start) / copies)
    return 2 * source.nbytes / median(times[2:])


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def measure(llama: Llama, counts: list[int], repetitions: int, device: torch.device, report: Report) -> None:
    """One table, and the figures at 8 trials (with --quick, at the most there are)."""
    names = [OURS, *RATIOS]
    rows = []
    for num_trials in counts:
        total = num_trials * sum(a * b for a, b in llama.shapes())
        if total * BYTES_HELD > 0.75 * free_bytes(device):
            report.note(
                f"{llama.name} x {num_trials} left out: {free_bytes(device) / 2**30:.0f} GiB are free."
            )
            break
        found = seconds(contenders(Pack(llama, num_trials, device)), device, repetitions, report)
        ours = found[OURS]
        times = [1e3 * found[name] if name in found else "-" for name in names]
        against = [found[name] / ours if name in found else "-" for name in RATIOS]
        share = BYTES_PER_PARAMETER * total / ours / copy_bandwidth(device, total)
        rows.append([num_trials, total / 1e6, *times, *against, share])
        if num_trials == min(8, counts[-1]):
            for name, word in RATIOS.items():
                if name in found:
                    report.figure(f"update_time_ratio_{word}{llama.suffix}", found[name] / ours)
            report.figure(f"update_copy_bandwidth_share{llama.suffix}", share)
    columns = ["trials", "million parameters", *(f"{name}, ms" for name in names)]
    columns += [*(f"{name} / pack" for name in RATIOS), "share of copy bandwidth"]
    report.table(f"{llama.name}, r={RANK}, all linear layers", columns, rows)


def main() -> None:
    """Measure the models that suit the device."""
    options = arguments(__doc__ or "").parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = Report(
        "update",
        "The same LoRA matrices and gradients, fp32, clipping to 1.0 per trial and AdamW with decay on both "
        "sides; medians of interleaved repetitions. pack: this program's update of all trials at once. The "
        "others: one optimizer per trial after torch's clip_grad_norm_.",
    )
    if find_spec("bitsandbytes") is None:
        report.note("bitsandbytes is not installed.")
    report.note(
        f"Share of copy bandwidth: {BYTES_PER_PARAMETER} bytes per parameter over the pack's time, against "
        "torch's copy of a buffer as long as the parameters."
    )
    if options.quick:
        measure(SMALL, [1, 2], 3, device, report)
    elif device.type == "cuda":
        for llama in (LLAMA_1B, LLAMA_8B):
            measure(llama, [1, 2, 4, 8, 16, 32], 10, device, report)
            if options.save:
                report.save()
    else:
        measure(SMALL, [1, 2, 4, 8, 16], 15, device, report)
        measure(LLAMA_1B, [1, 2, 4, 8], 5, device, report)
    report.finish(save=options.save)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
